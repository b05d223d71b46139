//! States as a word, a shape and a colour, so that none of the three is needed alone.

use maud::{Markup, html};

/// What a watched model can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing unusual.
    Healthy,
    /// Evidence grows, below the alarm's threshold.
    Watching,
    /// The alarm rang.
    Shift,
    /// The sensor itself looks broken.
    SensorFault,
    /// The engine does not compute its model.
    EngineFault,
    /// Frames take longer than their budget.
    Slow,
    /// A condition of the promise does not hold.
    NoGuarantee,
}

impl State {
    /// The word shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Watching => "watching",
            Self::Shift => "shift",
            Self::SensorFault => "sensor fault",
            Self::EngineFault => "engine fault",
            Self::Slow => "slow",
            Self::NoGuarantee => "no guarantee",
        }
    }

    fn shape(self) -> (&'static str, &'static str) {
        match self {
            Self::Healthy => ("d3", "M6 0A6 6 0 1 1 6 12A6 6 0 1 1 6 0Z"),
            Self::Watching => ("d6", "M6 0A6 6 0 0 1 6 12ZM6 0A6 6 0 0 0 6 12L6 10.6A4.6 4.6 0 0 1 6 1.4Z"),
            Self::Shift => ("d2", "M6 0L12 11.5H0Z"),
            Self::SensorFault => ("d5", "M0.5 0.5H11.5V11.5H0.5Z"),
            Self::EngineFault => ("d5", "M6 0L12 4.5L9.7 12H2.3L0 4.5Z"),
            Self::Slow => ("d4", "M6 0L12 6L6 12L0 6Z"),
            Self::NoGuarantee => ("d4", "M4 0H8V4H12V8H8V12H4V8H0V4H4Z"),
        }
    }
}

/// The badge of a state.
pub fn badge(state: State) -> Markup {
    let (colour, path) = state.shape();
    marked(colour, path, state.word())
}

/// A yes or no in the same form: a tick and `yes` words, or a cross and `no` words.
pub fn verdict(yes: bool, words: &str) -> Markup {
    if yes {
        marked("d3", "M4.4 11L0 6.6L1.9 4.7L4.4 7.2L10.1 1.5L12 3.4Z", words)
    } else {
        marked("d2", "M2 0L6 4L10 0L12 2L8 6L12 10L10 12L6 8L2 12L0 10L4 6L0 2Z", words)
    }
}

/// The name of a thing after a dot in the colour that charts draw it with; `index` counts the things.
pub fn swatch(index: usize, name: &str) -> Markup {
    marked(&format!("d{}", index % 6 + 1), "M6 1A5 5 0 1 1 6 11A5 5 0 1 1 6 1Z", name)
}

fn marked(colour: &str, path: &str, words: &str) -> Markup {
    html! {
        span.badge { svg viewBox="0 0 12 12" aria-hidden="true" { path class=(colour) d=(path) {} } (words) }
    }
}
