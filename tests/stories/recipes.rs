//! "Which method is best for my pictures?": every one of them by name, and what some of them need beside the pictures.

use super::{Run, excon, own_folder};
use excon_train::config::RecipeName;
use std::fs;
use std::path::{Path, PathBuf};

const SETTINGS: [&str; 8] = ["--epochs", "2", "--batch", "16", "--lr", "0.02", "--image-size", "32"];

fn train(here: &Path, recipe: &str, out: &str, more: &[&str]) -> Run {
    let arguments = ["train", "--data", "own", "--recipe", recipe, "--out", out];
    excon(here, &[&arguments[..], &SETTINGS, more].concat())
}

/// The photographs of a folder of class folders, as paths below it.
fn photographs(own: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let mut names: Vec<PathBuf> = entries(own)
        .iter()
        .flat_map(|class| entries(class))
        .map(|path| path.strip_prefix(own).unwrap().to_path_buf())
        .collect();
    names.sort();
    names
}

#[test]
fn every_recipe_trains_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    own_folder(here, 30);
    for recipe in RecipeName::ALL.map(RecipeName::as_str) {
        if ["multi-label", "pairs"].contains(&recipe) {
            let refused = train(here, recipe, recipe, &[]).expect(64);
            assert!(refused.stderr.contains(".csv"), "{}", refused.stderr);
            continue;
        }
        train(here, recipe, recipe, &[]).expect(0);
        assert!(here.join(recipe).join("model.safetensors").is_file());
    }
    for recipe in ["supcon", "excon", "excon-b", "leoclr", "edda-style", "background-mixup"] {
        train(here, recipe, &format!("{recipe}-paper"), &["--mode", "paper", "--set", "queue.length=64"]).expect(0);
    }
    train(here, "excon", "again", &["--init", "excon", "--freeze", "2"]).expect(0);
    // A method without labels is judged by its features.
    let probe = ["evaluate", "leoclr", "--data", "own", "--probe"];
    let probed = excon(here, &[&probe[..], &["--format", "json"]].concat()).expect(0).json();
    for figure in ["linear", "neighbours"] {
        assert!((0.0..=1.0).contains(&probed["probe"][figure].as_f64().unwrap()), "{probed}");
    }
    assert_eq!((&probed["probe"]["voters"], &probed["probe"]["count"]), (&20.into(), &15.into()));
    let said = excon(here, &probe).expect(0).stdout;
    assert!(said.contains("linear probe") && said.contains("20 vote"), "{said}");
}

#[test]
fn a_photograph_may_have_several_labels() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let own = own_folder(here, 20);
    let mut table = "picture,labels\n".to_string();
    for (i, name) in photographs(&own).iter().enumerate() {
        let class = name.parent().unwrap().display();
        table += &format!("{},{class}{}\n", name.display(), if i % 2 == 0 { ";even" } else { "" });
    }
    fs::write(own.join("labels.csv"), table).unwrap();
    let trained = train(here, "multi-label", "run", &["--format", "json"]).expect(0).json();
    assert!(trained["validation_map"].as_f64().unwrap() > 0.0);
    let evaluated = excon(here, &["evaluate", "run", "--data", "own", "--format", "json"]).expect(0).json();
    assert_eq!(evaluated["schema"], "excon.multi-label-evaluation/1");
    assert_eq!(evaluated["evaluation"]["labels"].as_array().unwrap().len(), 4);
    let said = excon(here, &["evaluate", "run", "--data", "own"]).expect(0).stdout;
    assert!(said.contains("mAP") && said.contains("even"), "{said}");

    // What it cannot do yet is said, and nothing is written.
    let refused = excon(here, &["convert", "run", "--data", "own", "--out", "own.excon"]).expect(65);
    assert!(refused.stderr.contains("cannot be converted yet"), "{}", refused.stderr);
    assert!(!here.join("own.excon").exists());
    let refused = excon(here, &["evaluate", "run", "--data", "own", "--probe"]).expect(64);
    assert!(refused.stderr.contains("--probe"), "{}", refused.stderr);
    let refused = train(here, "supcon", "other", &[]).expect(64);
    assert!(refused.stderr.contains("multi-label"), "{}", refused.stderr);
    fs::remove_file(own.join("labels.csv")).unwrap();
    let refused = excon(here, &["evaluate", "run", "--data", "own"]).expect(65);
    assert!(refused.stderr.contains("sets"), "{}", refused.stderr);
}

#[test]
fn positives_may_come_from_a_generator() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let own = own_folder(here, 20);
    let mut table = "picture,positive,label,share\n".to_string();
    fs::create_dir(own.join("made")).unwrap();
    for (i, name) in photographs(&own).iter().enumerate() {
        // The generator of this story turns a picture into itself; every third goes a little towards glass.
        let made = format!("made/{i:03}.jpg");
        fs::copy(own.join(name), own.join(&made)).unwrap();
        table += &format!("{},{made},{}\n", name.display(), if i % 3 == 0 { "glass,0.3" } else { "," });
    }
    fs::write(own.join("pairs.csv"), table).unwrap();
    train(here, "pairs", "run", &[]).expect(0);
    // The generated ones are no class, and need not be there again.
    let evaluated = excon(here, &["evaluate", "run", "--data", "own", "--format", "json"]).expect(0).json();
    assert_eq!(evaluated["evaluation"]["metrics"]["count"], 9);
}

#[test]
fn help_and_the_page_list_every_recipe() {
    let help = excon(Path::new("."), &["train", "--help"]).expect(0).stdout;
    let page = include_str!("../../docs/recipes.md");
    for recipe in RecipeName::ALL {
        let name = recipe.as_str();
        assert!(help.contains(&format!("  {name} ")), "{name} is not in the help");
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/recipes.md");
    }
}
