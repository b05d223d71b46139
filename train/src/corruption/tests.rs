#![allow(clippy::unwrap_used)]
//! Golden comparisons with the reference implementation, and statistics of the random corruptions.

use super::apply::{Field, Level};
use super::*;
use crate::augment::resample::{Filter, resize_bytes};
use crate::dataset::{OpenOptions, open};
use excon_edge::image::Picture;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/corruption");

pub(super) struct Golden(Vec<u8>);

impl Golden {
    /// `deterministic` or `random`.
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(format!("{FOLDER}/{name}.safetensors")).unwrap())
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data().to_vec()
    }

    pub fn f32(&self, name: &str) -> Vec<f64> {
        self.bytes(name).as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
    }

    fn pictures(&self) -> Vec<Picture> {
        let pictures = self.bytes("image");
        pictures.chunks_exact(3072).map(|rgb| Picture { width: 32, height: 32, rgb: rgb.to_vec() }).collect()
    }
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

#[test]
fn deterministic_corruptions_equal_the_reference() {
    let golden = Golden::open("deterministic");
    use Corruption::*;
    for corruption in [Brightness, Saturate, Contrast, GaussianBlur, DefocusBlur, ZoomBlur] {
        for severity in 1..=5 {
            let expected = golden.bytes(&format!("{corruption}.{severity}.u8"));
            for (picture, expected) in golden.pictures().iter().zip(expected.chunks_exact(3072)) {
                let values = corruption.values(picture, Level::new(picture, severity).unwrap(), &mut rng(1));
                let ours = corruption.apply(picture, severity, &mut rng(1)).unwrap().rgb;
                for i in 0..3072 {
                    let exact = values[i].clamp(0.0, 1.0) * 255.0;
                    // Where theory gives an integer, the last bit decides what truncation makes of it.
                    let allowed = u8::from((exact - exact.round()).abs() < 1e-3);
                    let gap = ours[i].abs_diff(expected[i]);
                    assert!(
                        gap <= allowed,
                        "{corruption} {severity} value {i}: {exact}, byte {} for {}",
                        ours[i],
                        expected[i]
                    );
                }
            }
        }
        let picture = &golden.pictures()[0];
        for severity in [1, 5] {
            let values = corruption.values(picture, Level::new(picture, severity).unwrap(), &mut rng(1));
            let expected = golden.bytes(&format!("{corruption}.{severity}.f32"));
            for (value, expected) in values.iter().zip(expected.chunks_exact(4)) {
                let expected = f64::from(f32::from_le_bytes(expected.try_into().unwrap()));
                assert!((value.clamp(0.0, 1.0) * 255.0 - expected).abs() <= 1e-3, "{corruption} {severity}");
            }
        }
    }
}

#[test]
fn disk_kernels_equal_opencv() {
    let golden = Golden::open("deterministic");
    for (severity, radius, sigma) in [(1, 0.3, 0.4), (4, 1.0, 0.2), (5, 1.5, 0.1)] {
        let expected = golden.bytes(&format!("disk_kernel_sev{severity}"));
        for (ours, expected) in blur::disk(radius, sigma).iter().zip(expected.chunks_exact(8)) {
            assert!((ours - f64::from_le_bytes(expected.try_into().unwrap())).abs() < 1e-7);
        }
    }
}

#[test]
fn pixelate_and_jpeg_are_near_pillow() {
    let golden = Golden::open("deterministic");
    for severity in 1..=5 {
        for (index, picture) in golden.pictures().iter().enumerate() {
            let gaps = |corruption: Corruption| -> Vec<u8> {
                let expected = golden.bytes(&format!("{corruption}.{severity}.u8"));
                let ours = corruption.apply(picture, severity, &mut rng(1)).unwrap().rgb;
                ours.iter().zip(&expected[index * 3072..]).map(|(a, b)| a.abs_diff(*b)).collect()
            };
            assert!(gaps(Corruption::Pixelate).iter().all(|gap| *gap <= 1), "pixelate {severity}");
            let jpeg = gaps(Corruption::JpegCompression);
            let mean = jpeg.iter().map(|gap| f64::from(*gap)).sum::<f64>() / 3072.0;
            let most = jpeg.iter().max().unwrap();
            assert!(mean <= 1.5 && *most <= 16, "jpeg {severity}: mean gap {mean}, largest {most}");
        }
    }
}

#[test]
fn noises_have_the_statistics_of_the_reference() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(format!("{FOLDER}/random_statistics.json")).unwrap()).unwrap();
    // The reference's pictures: the first 200 in bytewise order, which all lie in the test split.
    let test = open("trashnet", &OpenOptions::default()).unwrap().test;
    let pictures: Vec<Picture> = (0..200)
        .map(|i| {
            let rgb = resize_bytes(test.picture(i), (64, 64), (32, 32), Filter::Box);
            Picture { width: 32, height: 32, rgb }
        })
        .collect();
    let mut checked = 0;
    for name in ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"] {
        let corruption: Corruption = name.parse().unwrap();
        for severity in 1..=5 {
            let mut rng = rng(100 + severity as u64);
            let mut changes: Vec<(u8, f64)> = Vec::new();
            for picture in &pictures {
                let out = corruption.apply(picture, severity, &mut rng).unwrap();
                changes.extend(picture.rgb.iter().zip(&out.rgb).map(|(a, b)| (*a, f64::from(*b) - f64::from(*a))));
            }
            let mean_of = |keep: &dyn Fn(u8) -> bool, f: &dyn Fn(f64) -> f64| {
                let kept: Vec<f64> = changes.iter().filter(|(a, _)| keep(*a)).map(|(_, d)| f(*d)).collect();
                kept.iter().sum::<f64>() / kept.len() as f64
            };
            let all = |_: u8| true;
            let mean = mean_of(&all, &|d| d);
            let measured = [
                ("mean_change", mean),
                ("std_change", mean_of(&all, &|d| (d - mean) * (d - mean)).sqrt()),
                ("mean_abs_change", mean_of(&all, &f64::abs)),
                ("share_changed", mean_of(&all, &|d| f64::from(d != 0.0))),
                ("mean_change_where_input_ge_250", mean_of(&|a| a >= 250, &|d| d)),
                ("mean_change_where_input_le_5", mean_of(&|a| a <= 5, &|d| d)),
            ];
            for (what, value) in measured {
                let reference = &expected[format!("{name}.{severity}")][what];
                let (centre, sd) =
                    (reference["mean"].as_f64().unwrap(), reference["sd_over_8_seeds"].as_f64().unwrap());
                assert!((value - centre).abs() <= 6.0 * sd + 0.02, "{name} {severity} {what}: {value} for {centre}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 4 * 5 * 6);
}

/// The one picture of the random corruptions' vectors.
fn random_picture(golden: &Golden) -> Picture {
    Picture { width: 32, height: 32, rgb: golden.bytes("image") }
}

/// Largest gap of a field in 0..1 to a stored one in 0..255, after clipping; and the mean.
fn gaps(field: &Field, expected: &[f64]) -> (f64, f64) {
    let gaps: Vec<f64> =
        field.values.iter().zip(expected).map(|(a, b)| (a.clamp(0.0, 1.0) * 255.0 - b).abs()).collect();
    assert_eq!(field.values.len(), expected.len());
    (gaps.iter().copied().fold(0.0, f64::max), gaps.iter().sum::<f64>() / gaps.len() as f64)
}

#[test]
fn motion_blur_is_imagemagicks() {
    let golden = Golden::open("random");
    let picture = random_picture(&golden);
    let strengths = [(6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)];
    for ((severity, angle), (radius, sigma)) in (1..).zip(golden.f32("angle")).zip(strengths) {
        let ours = blur::motion(&picture.rgb, (32, 32), radius, sigma, angle);
        assert_eq!(ours, golden.bytes(&format!("motion_blur.{severity}")), "severity {severity}");
    }
}

#[test]
fn snow_spatter_and_glass_equal_the_reference_on_the_same_draws() {
    let golden = Golden::open("random");
    let (normal, angles) = (golden.f32("normal"), golden.f32("snow_angle"));
    let shifts: Vec<i64> = golden.bytes("shift").as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
    let glass = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)];
    for severity in 1..=5 {
        let of = |change: &mut dyn FnMut(&mut Field)| {
            let mut field = Field::of(&random_picture(&golden));
            change(&mut field);
            field
        };
        let index = severity - 1;
        let normal = &normal[index * 1024..][..1024];
        let ours = of(&mut |f| weather::snow(f, normal, angles[index], weather::SNOW_CIFAR[index]));
        assert!(gaps(&ours, &golden.f32(&format!("snow.{severity}"))).0 < 1e-3, "snow {severity}");
        let ours = of(&mut |f| splash::spatter(f, normal, splash::CIFAR[index]));
        let gap = gaps(&ours, &golden.f32(&format!("spatter.{severity}")));
        assert!(gap.0 < 1e-3, "spatter {severity}: {gap:?}");
        let mut draws = shifts[index * 3600..].as_chunks::<2>().0.iter();
        let mut shift = || draws.next().map(|[x, y]| (*x as isize, *y as isize)).unwrap();
        let (sigma, passes) = glass[index];
        let ours = of(&mut |f| blur::glass(f, sigma, 1, passes, &mut shift));
        // A byte in between may be truncated one level lower.
        let gap = gaps(&ours, &golden.f32(&format!("glass_blur.{severity}")));
        assert!(gap.0 <= 1.0 && gap.1 < 0.02, "glass {severity}: {gap:?}");
    }
}

#[test]
fn elastic_transform_is_opencvs_and_scipys() {
    let golden = Golden::open("random");
    let (jitter, displacement) = (golden.f32("jitter"), golden.f32("displacement"));
    let strengths = [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)];
    for (index, (alpha, sigma, affine)) in strengths.into_iter().enumerate() {
        let severity = index + 1;
        let points = std::array::from_fn(|p| [0, 1].map(|c| 32.0 * affine * jitter[index * 6 + p * 2 + c]));
        let mut field = Field::of(&random_picture(&golden));
        warp::affine(&mut field, points);
        // OpenCV rounds where it samples to 1/32 of a pixel.
        let gap = gaps(&field, &golden.f32(&format!("elastic_transform.{severity}.affine")));
        assert!(gap.0 < 6.0 && gap.1 < 0.5, "affine {severity}: {gap:?}");
        if alpha > 0.0 {
            let [dx, dy] = [0, 1].map(|i| displacement[(index * 2 + i) * 1024..][..1024].to_vec());
            warp::displace(&mut field, dx, dy, alpha * 32.0, sigma * 32.0);
        }
        let gap = gaps(&field, &golden.f32(&format!("elastic_transform.{severity}")));
        assert!(gap.0 < 6.0 && gap.1 < 0.5, "elastic {severity}: {gap:?}");
    }
}

#[test]
fn frost_is_pale_bluish_veined_and_grows() {
    let grey = Picture { width: 64, height: 64, rgb: vec![60; 64 * 64 * 3] };
    let shares: Vec<f64> = (1..=5)
        .map(|severity| {
            let out = Corruption::FrostLike.apply(&grey, severity, &mut rng(4)).unwrap().rgb;
            let mean = |c: usize| out.iter().skip(c).step_by(3).map(|b| f64::from(*b)).sum::<f64>() / 4096.0;
            let (red, blue) = (mean(0), mean(2));
            assert!(blue > red, "bluish: {red} {blue}");
            let spread = out.iter().skip(1).step_by(3).map(|b| (f64::from(*b) - mean(1)).powi(2)).sum::<f64>() / 4096.0;
            assert!(spread.sqrt() > 4.0, "veins: {}", spread.sqrt());
            // What is not the picture is ice.
            let keep = [1.0, 0.9, 0.8, 0.75, 0.7][severity - 1];
            mean(1) - 60.0 * keep
        })
        .collect();
    assert!(shares.is_sorted(), "{shares:?}");
    assert_ne!(
        Corruption::FrostLike.apply(&grey, 3, &mut rng(4)).unwrap(),
        Corruption::FrostLike.apply(&grey, 3, &mut rng(5)).unwrap()
    );
}

#[test]
fn all_nineteen_of_the_benchmark_are_there_and_grouped() {
    let named = Corruption::ALL.into_iter().filter_map(Corruption::benchmark_name);
    let mut named: Vec<&str> = named.collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named.len(), 19);
    let counts = [Group::Noise, Group::Blur, Group::Weather, Group::Digital, Group::HeldOut, Group::Ours]
        .map(|group| Corruption::ALL.into_iter().filter(|c| c.group() == group).count());
    assert_eq!(counts, [3, 4, 4, 4, 4, 1]);
    assert!(Corruption::ALL.map(Corruption::group).is_sorted(), "tables are printed group by group");
    // What is named otherwise than in the benchmark is not the benchmark's.
    for corruption in Corruption::ALL.into_iter().filter(|c| c.benchmark_name() != Some(c.name())) {
        assert!(corruption.approximation().is_some(), "{corruption}");
    }
}

#[test]
fn fog_is_smooth_bright_and_grows() {
    let map = light::plasma(32, 3.0, &mut rng(3));
    assert_eq!(map.iter().copied().fold(f64::INFINITY, f64::min), 0.0);
    assert_eq!(map.iter().copied().fold(0.0, f64::max), 1.0);
    // Neighbours on the torus are far closer to each other than two values drawn at random would be (mean gap 1/3).
    let rough =
        (0..1024).map(|i| (map[i] - map[(i + 32) % 1024]).abs() + (map[i] - map[i / 32 * 32 + (i + 1) % 32]).abs());
    let rough = rough.sum::<f64>() / 2048.0;
    assert!(rough < 0.1, "mean step {rough}");
    let flat = Picture { width: 40, height: 24, rgb: vec![128; 40 * 24 * 3] };
    let spread: Vec<f64> = (1..=5)
        .map(|severity| {
            let out = Corruption::Fog.apply(&flat, severity, &mut rng(3)).unwrap().rgb;
            assert!(out.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]), "fog has no colour");
            let mean = out.iter().map(|b| f64::from(*b)).sum::<f64>() / out.len() as f64;
            (out.iter().map(|b| (f64::from(*b) - mean).powi(2)).sum::<f64>() / out.len() as f64).sqrt()
        })
        .collect();
    assert!(spread.is_sorted() && spread[0] > 3.0, "{spread:?}");
}

#[test]
fn dark_takes_what_brightness_adds() {
    let picture = Picture { width: 2, height: 1, rgb: vec![200, 100, 50, 20, 20, 20] };
    let dark = Corruption::Dark.apply(&picture, 4, &mut rng(1)).unwrap().rgb;
    // Value 200/255 less 0.2 is 149/255; hue and saturation stay: all channels shrink alike.
    for (value, expected) in dark.iter().zip([149.0, 74.5, 37.25, 0.0, 0.0, 0.0]) {
        assert!((f64::from(*value) - expected).abs() <= 1.0, "{dark:?}");
    }
}

#[test]
fn every_corruption_keeps_any_size_and_repeats_itself() {
    for (width, height) in [(1, 1), (2, 3), (33, 20), (64, 64)] {
        let rgb = (0..width * height * 3).map(|i| (i * 37 % 256) as u8).collect();
        let picture = Picture { width, height, rgb };
        for corruption in Corruption::ALL {
            for severity in [1, 5] {
                let out = corruption.apply(&picture, severity, &mut rng(9)).unwrap();
                assert_eq!((out.width, out.height, out.rgb.len()), (width, height, width * height * 3));
                assert_eq!(out, corruption.apply(&picture, severity, &mut rng(9)).unwrap());
                assert!(width < 64 || out != picture, "{corruption} {severity} changes nothing");
            }
            assert!(matches!(corruption.apply(&picture, 0, &mut rng(9)), Err(Error::Setting { .. })));
            assert!(matches!(corruption.apply(&picture, 6, &mut rng(9)), Err(Error::Setting { .. })));
        }
    }
}

#[test]
fn names_are_read_back_and_misspellings_answered() {
    for corruption in Corruption::ALL {
        assert_eq!(corruption.name().parse::<Corruption>().unwrap(), corruption);
    }
    assert!("gausian_noise".parse::<Corruption>().unwrap_err().to_string().contains("gaussian_noise"));
}
