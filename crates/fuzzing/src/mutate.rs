//! Repeatable mutations of the seeds, for runs without libFuzzer.
//!
//! They are blind: libFuzzer, which sees what an input reaches, finds more. But they need no compiler flags, take a few
//! seconds, and are the same everywhere, so that every run of the tests includes them.

/// Bytes that mean something to one decoder or another.
const TELLING: &[u8] = b"\0\xff\n\r\t \"\\{}[],:.-=$#0129aeE/";

/// Mutated inputs are cut to this many bytes, so that no run is slow.
const LONGEST: usize = 8 * 1024;

/// A small generator of numbers (xorshift), the same on every machine.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below a bound; 0 if the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % bound.max(1)
    }
}

/// Makes an input of one seed and pieces of the others.
pub fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds
        .get(random.below(seeds.len()))
        .cloned()
        .unwrap_or_default();
    for _ in 0..=random.below(6) {
        change(&mut input, seeds, random);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + 1 + random.below(40)).min(input.len());
    match random.below(8) {
        0 if at < end => input[at] ^= 1 << random.below(8),
        1 if at < end => input[at] = TELLING[random.below(TELLING.len())],
        2 if at < end => drop(input.drain(at..end)),
        3 => input.insert(at, TELLING[random.below(TELLING.len())]),
        4 if at < end => {
            let copy = input[at..end].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, copy);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let to = (from + random.below(80)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        6 => {
            let number: u64 = match random.below(4) {
                0 => u64::MAX,
                1 => 1 << random.below(64),
                2 => (1 << random.below(63)) - 1,
                _ => 0,
            };
            // In place of a number that stands there, if one does.
            let digits = input[at..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count();
            input.splice(at..at + digits, number.to_string().into_bytes());
        }
        _ => {
            let run = vec![TELLING[random.below(TELLING.len())]; random.below(100)];
            input.splice(at..at, run);
        }
    }
}
