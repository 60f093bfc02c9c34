//! The words of flipside as types: no I/O, no clock.
