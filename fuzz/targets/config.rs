//! The text of a settings file; what is accepted is written out and read again without a change.
#![no_main]

use excon_train::config::TrainConfig;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(config) = TrainConfig::resolve(Some(text), &toml::Table::new()) {
        let again = toml::to_string(&config).ok().and_then(|t| TrainConfig::resolve(Some(&t), &toml::Table::new()).ok());
        assert_eq!(again, Some(config));
    }
});
