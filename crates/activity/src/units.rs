//! Figures as people read them: binary sizes, short durations.

/// Formats bytes with a binary unit: `49.0 MiB`, `512 MiB`, `3.0 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024: take the next unit instead.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 99.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Formats bytes per second.
pub fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", size(bytes_per_second))
}

/// Formats microseconds: `74.3 ms`, `4.52 s`, `2 min 05 s`, `1 h 02 min`.
pub fn duration_us(us: u64) -> String {
    let ms = us as f64 / 1000.0;
    if ms < 99.95 {
        return format!("{ms:.1} ms");
    }
    if ms < 999.5 {
        return format!("{ms:.0} ms");
    }
    let seconds = ms / 1000.0;
    if seconds < 9.995 {
        let text = format!("{seconds:.2}");
        return format!("{} s", text.strip_suffix('0').unwrap_or(&text));
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        return format!("{} min {:02} s", whole / 60, whole % 60);
    }
    format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
}

/// Formats milliseconds; without a decimal below one second, because there is none.
pub fn duration_ms(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms} ms");
    }
    duration_us(ms.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_with_three_figures_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (65536, "64.0 KiB"),
            (49 << 20, "49.0 MiB"),
            (512 << 20, "512 MiB"),
            (3 << 30, "3.0 GiB"),
            ((1 << 30) - 1, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn durations_take_the_unit_that_fits() {
        for (us, text) in [
            (0, "0.0 ms"),
            (8_100, "8.1 ms"),
            (74_300, "74.3 ms"),
            (312_400, "312 ms"),
            (2_100_000, "2.1 s"),
            (4_520_000, "4.52 s"),
            (12_340_000, "12.3 s"),
            (125_000_000, "2 min 05 s"),
            (3_720_000_000, "1 h 02 min"),
        ] {
            assert_eq!(duration_us(us), text);
        }
        assert_eq!(duration_ms(85), "85 ms");
        assert_eq!(duration_ms(4310), "4.31 s");
    }
}
