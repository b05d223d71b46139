//! Defaults, precedence, and what is answered to settings that make no sense.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::explain::{CamLayer, MaskRule};

fn resolve(text: &str) -> Result<TrainConfig> {
    TrainConfig::resolve(Some(text), &Table::new())
}

#[test]
fn defaults_follow_recipe_and_mode_and_survive_a_round_trip() {
    for recipe in RecipeName::ALL {
        for mode in [Mode::Device, Mode::Paper] {
            let config = TrainConfig::defaults(recipe, mode);
            config.check().unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(resolve(&text).unwrap(), config);
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<TrainConfig>(&json).unwrap(), config);
        }
    }
    let paper = resolve("mode = 'paper'").unwrap();
    assert_eq!((paper.explain.cam_layer, paper.joint, paper.epochs), (CamLayer::Paper, false, 200));
    assert_eq!(resolve("recipe = 'excon-b'").unwrap().background, Background::Negatives);
    assert_eq!(resolve("recipe = 'supcon-two-stage'").unwrap().epochs, 80);
    assert_eq!(resolve("recipe = 'leoclr'\nmode = 'paper'").unwrap().queue, QueueConfig::paper());
}

#[test]
fn runs_from_before_a_method_existed_are_read() {
    let mut table = Table::try_from(TrainConfig::defaults(RecipeName::Supcon, Mode::Device)).unwrap();
    for key in ["sampler", "queue", "edda", "hybrid", "mixup", "compose"] {
        assert!(table.remove(key).is_some(), "{key}");
    }
    let read: TrainConfig = Value::Table(table).try_into().unwrap();
    assert_eq!(read, TrainConfig::defaults(RecipeName::Supcon, Mode::Device));
}

#[test]
fn titles_name_the_method_fully() {
    let title = |text: &str| resolve(text).unwrap().title();
    assert_eq!(title(""), "excon (device, joint)");
    assert_eq!(title("recipe = 'supcon'\njoint = false"), "supcon (pure)");
    assert_eq!(title("recipe = 'leoclr'"), "leoclr");
    assert_eq!(title("recipe = 'control'"), "control (joint)");
    assert_eq!(title("recipe = 'edda-style'\nmode = 'paper'"), "edda-style (paper)");
}

#[test]
fn overrides_win_and_tables_merge() {
    let over: Table = "epochs = 3\n[explain]\nmask_rule = { top = 0.15 }".parse().unwrap();
    let text = "epochs = 9\nbatch = 32\n[explain]\ncam_relu = true\n[views]\njitter = false";
    let config = TrainConfig::resolve(Some(text), &over).unwrap();
    assert_eq!((config.epochs, config.batch), (3, 32));
    assert!(config.explain.cam_relu && config.views.jitter.is_none());
    assert_eq!(config.explain.mask_rule, MaskRule::Top(0.15));
}

#[test]
fn the_first_difference_is_named_with_both_values() {
    let base = resolve("").unwrap();
    assert_eq!(base.difference(&base.clone()), None);
    let over = |text: &str| base.with(Some(text), &Table::new()).unwrap();
    assert_eq!(base.with(None, &Table::new()).unwrap(), base);
    let said = |text: &str| base.difference(&over(text)).map(|(key, a, b)| format!("{key} {a} {b}"));
    assert_eq!(said("epochs = 7").unwrap(), "epochs 40 7");
    assert_eq!(said("[explain]\ncam_relu = true").unwrap(), "explain.cam_relu false true");
    assert_eq!(said("classes = 4").unwrap(), "classes not set 4");
    assert!(said("[views]\njitter = false").unwrap().starts_with("views.jitter"));
    assert!(base.with(Some("epoch = 3"), &Table::new()).unwrap_err().to_string().contains("`epochs`"));
}

#[test]
fn unknown_names_get_the_nearest() {
    let message = |text: &str| resolve(text).unwrap_err().to_string();
    assert!(message("epoch = 3").contains("`epochs`"), "{}", message("epoch = 3"));
    assert!(message("[explain]\ncam_rely = true").contains("`cam_relu`"));
    assert!(message("recipe = 'exconb'").contains("`excon-b`"), "{}", message("recipe = 'exconb'"));
    assert!(message("epochs = ").contains("configuration"));
}

#[test]
fn values_out_of_range_name_the_setting() {
    for (text, name) in [
        ("epochs = 0", "epochs"),
        ("learning_rate = -1.0", "learning_rate"),
        ("recipe = 'excon-b'\nbackground = 'off'", "background"),
        ("[explain]\nmask_rule = { value = 1.5 }", "mask_rule"),
        ("[contrast]\ntemperature = 0.0", "contrast"),
        ("validation = 1.0", "validation"),
        ("recipe = 'cross-entropy'\njoint = false", "joint"),
        ("recipe = 'leoclr'\njoint = true", "joint"),
        ("recipe = 'control'\nview1_unmasked = false", "view1_unmasked"),
        ("recipe = 'multi-label'\nrefit_head = true", "refit_head"),
        ("recipe = 'supcon-two-stage'\nepochs = 1", "epochs"),
        ("[queue]\nlength = 0", "queue.length"),
        ("[sampler]\npower = 1.5", "sampler.power"),
        ("[compose]\ngrid = 0", "compose.grid"),
    ] {
        assert!(resolve(text).unwrap_err().to_string().contains(name), "{text}");
    }
}
