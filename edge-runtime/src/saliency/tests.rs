//! Maps, masks and faithfulness against captum and torch, through the reference network, and against their own laws.
#![allow(clippy::unwrap_used)]

use super::resnet8::ResNet8;
use super::*;
use crate::engine::{Engine, Outputs, Shapes};
use crate::fixture::{Golden, gap, json};
use crate::probability::softmax;
use proptest::prelude::*;

/// Map `index` of a stack `n × height × width`.
fn map(golden: &Golden, name: &str, index: usize) -> Map {
    let shape = golden.shape(name);
    let (height, width) = (shape[1], shape[2]);
    Map { width, height, values: golden.f32(name)[index * width * height..][..width * height].to_vec() }
}

/// Largest gap over the largest absolute reference value.
fn relative_gap(own: &[f32], reference: &[f32]) -> f64 {
    gap(own, reference) / reference.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max)
}

/// Pictures in bytes (`n × 3 × 32 × 32`), normalised as the reference network was trained.
fn normalised(golden: &Golden) -> Vec<f32> {
    let (mean, std) = ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]);
    let bytes = golden.u8("image_u8");
    let value = |(i, byte): (usize, &u8)| (f32::from(*byte) / 255.0 - mean[i / 1024 % 3]) / std[i / 1024 % 3];
    bytes.iter().enumerate().map(value).collect()
}

#[test]
fn the_reference_network_is_the_reference_network() {
    let images = normalised(&Golden::open("network/batch.safetensors"));
    let outputs = ResNet8::open().run(&images).unwrap();
    let golden = Golden::open("network/eval_forward.safetensors");
    assert!(gap(&outputs.logits, &golden.f64("logits")) <= 2e-5);
    assert!(relative_gap(&outputs.features[..4 * 64 * 64], &golden.f32("last_map")) <= 1e-4);
    let pooled: Vec<f32> = outputs.features.chunks_exact(64 * 64).flat_map(|f| pool(f, 64)).collect();
    assert!(gap(&pooled, &golden.f64("pooled")) <= 2e-5);
}

#[test]
fn exact_maps_are_captums_and_complete() {
    let golden = Golden::open("explain/maps.safetensors");
    let features = Golden::open("network/eval_forward.safetensors").f32("last_map");
    let (head, logits) = (ResNet8::open().head, golden.f32("logits"));
    for target in ["label", "predicted"] {
        for (index, class) in golden.index(target).into_iter().enumerate() {
            let own = class_activation_map(&features[index * 4096..][..4096], [64, 8, 8], &head, class);
            assert!(relative_gap(&own.values, &map(&golden, &format!("cam.{target}"), index).values) <= 1e-4);
            // Grad-CAM at the last map is the exact map over its area.
            let scaled: Vec<f32> = own.values.iter().map(|v| v / 64.0).collect();
            let reference = map(&golden, &format!("gradcam.last.{target}"), index);
            assert!(relative_gap(&scaled, &reference.values) <= 1e-4);
            let logit = logits[index * 10 + class];
            assert!(completeness_residual(&own, &head, class, logit) < 1e-5);
            assert!(completeness_residual(&own, &head, class, logit + 0.1) > 1e-3);
        }
    }
}

#[test]
fn upsampling_is_torchs() {
    let golden = Golden::open("explain/upsample.safetensors");
    for case in ["4to32", "7to32", "8to32", "8to64", "16to32", "2to5", "3x5to12x11"] {
        let (from, to) = (format!("in.{case}"), format!("out.{case}"));
        for index in 0..golden.shape(&from)[0] {
            let expected = map(&golden, &to, index);
            let own = map(&golden, &from, index).upsample(expected.width, expected.height);
            assert!(gap(&own.values, &expected.values) <= 1e-6, "{case}");
        }
    }
}

#[test]
fn masks_are_the_reference() {
    let golden = Golden::open("explain/masks.safetensors");
    for (case, has_top) in [
        ("gradcam32", true),
        ("negative32", true),
        ("noise64", true),
        ("hand_negative", false),
        ("constant", false),
        ("tiny_range", false),
    ] {
        for index in 0..golden.shape(&format!("{case}.map"))[0] {
            let own = map(&golden, &format!("{case}.map"), index);
            let cells = own.values.len();
            let reference = map(&golden, &format!("{case}.normalised"), index);
            let level = own.normalised();
            assert!(gap(&level.values, &reference.values) <= 1e-5, "{case}");
            let expected = &golden.mask(&format!("{case}.keep_gt_half"))[index * cells..][..cells];
            for (cell, (own, expected)) in keep_above(&level, 0.5).iter().zip(expected).enumerate() {
                let near = (reference.values[cell] - 0.5).abs() < 1e-5 && reference.values[cell] != 0.5;
                assert!(own == expected || near, "{case} cell {cell}");
            }
            if has_top {
                let expected = &golden.mask(&format!("{case}.keep_top15"))[index * cells..][..cells];
                assert_eq!(keep_top(&own, 0.15), expected, "{case}");
            }
        }
    }
}

#[test]
fn equal_values_stay_in_index_order() {
    let map = Map { width: 3, height: 2, values: vec![0.0, -0.0, 2.0, 0.0, f32::NAN, 2.0] };
    assert_eq!(map.order(), [2, 5, 0, 1, 3, 4]);
    assert_eq!(keep_top(&map, 0.5), [true, false, true, false, false, true]);
    assert_eq!(keep_top(&map, 0.0), [false; 6]);
    assert_eq!(keep_top(&map, 1.0), [true; 6]);
}

#[test]
fn removed_pixels_get_the_mean_colour_in_every_channel() {
    let mut image = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    mask_normalised(&mut image, &[true, false]);
    assert_eq!(image, [1.0, 0.0, 3.0, 0.0, 5.0, 0.0]);
    mask_normalised(&mut image, &[]);
    assert_eq!(image, [1.0, 0.0, 3.0, 0.0, 5.0, 0.0]);
}

#[test]
fn drop_and_increase_are_the_reference() {
    let golden = Golden::open("explain/drop_increase.safetensors");
    let expected = json("explain/drop_increase.json");
    let check = |own: &Faithfulness, layer: &str, tolerance: f64| {
        for (own, name) in [
            (own.drop, "drop"),
            (own.increase, "increase"),
            (own.gain, "mean_positive_gain"),
            (own.decrease, "share_decreased"),
        ] {
            let gap = (own - expected[layer][name].as_f64().unwrap()).abs();
            assert!(gap <= tolerance, "{layer} {name}: {gap}");
        }
        assert_eq!(own.count, 32);
    };
    let whole = golden.f64("p_original");
    for layer in ["stage2.conv2", "last"] {
        let masked = golden.f64(&format!("{layer}.p_masked"));
        check(&Faithfulness::of(&whole, &masked).unwrap(), layer, 1e-6);
    }
    let network = ResNet8::open();
    let own = faithfulness(&network, &network.head, &normalised(&golden), 0.15).unwrap();
    check(&own, "last", 2e-3);
}

#[test]
fn deletion_and_insertion_are_the_reference() {
    let golden = Golden::open("explain/deletion_insertion.safetensors");
    let images = normalised(&Golden::open("network/batch.safetensors"));
    let network = ResNet8::open();
    let (classes, orders) = (golden.index("predicted"), golden.index("order"));
    for index in 0..4 {
        let enlarged = map(&golden, "cam", index).upsample(32, 32);
        assert!(relative_gap(&enlarged.values, &map(&golden, "map", index).values) <= 1e-6);
        let order = &orders[index * 1024..][..1024];
        assert_eq!(map(&golden, "map", index).order(), order, "stable order of the given map");
        let image = &images[index * 3072..][..3072];
        let curves = deletion_insertion(&network, image, classes[index], order, 32).unwrap();
        for (own, name) in [(&curves.deletion, "deletion"), (&curves.insertion, "insertion")] {
            let expected = &golden.f64(&format!("{name}_f64"))[index * 33..][..33];
            assert!(gap(own, expected) <= 1e-5, "{name}");
            assert!((area(own) - golden.f64(&format!("{name}_area"))[index]).abs() <= 1e-5, "{name} area");
        }
    }
}

/// Two channels of 2×2 features are the picture's own planes; the head reads one each.
struct Toy {
    broken: bool,
}

impl Engine for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn shapes(&self) -> Shapes {
        Shapes { input: [2, 2, 2], classes: 2, features: [2, 2, 2] }
    }

    fn run(&self, images: &[f32]) -> crate::Result<Outputs> {
        let head = toy_head();
        let logits = images.chunks_exact(8).flat_map(|image| head.logits(&pool(image, 2))).collect();
        Ok(Outputs { logits, features: if self.broken { vec![] } else { images.to_vec() } })
    }
}

fn toy_head() -> LinearHead {
    LinearHead::new(2, 2, vec![1.0, 0.0, 0.0, 1.0], vec![0.0, 0.5]).unwrap()
}

#[test]
fn faithfulness_of_a_toy_is_what_a_hand_computes() {
    // Logits 3 and 1.5: class 0. Its map is the first plane; the top quarter is pixel 0, which keeps 8 of it and 4 of
    // the second plane: logits 2 and 1.5.
    let image = [8.0, 4.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0];
    let own = faithfulness(&Toy { broken: false }, &toy_head(), &image.repeat(70), 0.25).unwrap();
    let (p, q) = (softmax(&[3.0f32, 1.5], 1.0)[0], softmax(&[2.0f32, 1.5], 1.0)[0]);
    assert!((own.drop - (p - q) / p).abs() < 1e-12);
    assert_eq!((own.increase, own.gain, own.decrease, own.count), (0.0, 0.0, 1.0, 70));
    let curves = deletion_insertion(&Toy { broken: false }, &image, 0, &[0, 1, 2, 3], 2).unwrap();
    assert_eq!(curves.deletion.first(), curves.insertion.last());
    assert_eq!(curves.deletion.last(), curves.insertion.first());
    assert!((curves.deletion[0] - p).abs() < 1e-12);
}

#[test]
fn faithfulness_refuses_what_does_not_fit() {
    let toy = Toy { broken: false };
    let image = [1.0; 8];
    assert!(faithfulness(&toy, &toy_head(), &[], 0.15).is_err());
    assert!(faithfulness(&toy, &toy_head(), &image[..7], 0.15).is_err());
    assert!(faithfulness(&toy, &toy_head(), &image, 1.5).is_err());
    assert!(faithfulness(&toy, &LinearHead::new(2, 1, vec![1.0; 2], vec![0.0; 2]).unwrap(), &image, 0.15).is_err());
    assert!(faithfulness(&Toy { broken: true }, &toy_head(), &image, 0.15).is_err());
    assert!(Faithfulness::of(&[0.5], &[]).is_err());
    assert!(Faithfulness::of(&[0.0], &[0.5]).is_err());
    for (class, order, steps) in
        [(2, [0, 1, 2, 3], 2), (0, [0, 1, 2, 2], 2), (0, [0, 1, 2, 4], 2), (0, [0, 1, 2, 3], 0), (0, [0, 1, 2, 3], 5)]
    {
        assert!(deletion_insertion(&toy, &image, class, &order, steps).is_err());
    }
    assert!(deletion_insertion(&toy, &image, 0, &[0, 1, 2], 2).is_err());
    assert_eq!(area(&[0.3]), 0.0);
}

#[test]
fn a_head_is_checked() {
    assert!(LinearHead::new(2, 3, vec![0.0; 5], vec![0.0; 2]).is_err());
    assert!(LinearHead::new(2, 3, vec![0.0; 6], vec![0.0; 3]).is_err());
    assert!(LinearHead::new(usize::MAX, 2, vec![0.0; 6], vec![0.0; 3]).is_err());
    assert!(LinearHead::new(0, 3, vec![], vec![]).is_err());
    assert!(LinearHead::new(1, 1, vec![f32::NAN], vec![0.0]).is_err());
}

#[test]
fn entropy_and_concentration_are_what_they_say() {
    let flat = Map { width: 10, height: 10, values: vec![-3.0; 100] };
    assert_eq!((flat.entropy(), flat.concentration()), (1.0, 0.1));
    let mut peak = flat.clone();
    peak.values[42] = 5.0;
    assert_eq!((peak.entropy(), peak.concentration()), (0.0, 1.0));
    // Half of the mass evenly on 10 cells, half on 90 (the minimum cell takes none, so use differences above it).
    let values: Vec<f32> = (0..101)
        .map(|i| {
            if i == 0 {
                0.0
            } else if i <= 11 {
                9.0
            } else {
                1.0
            }
        })
        .collect();
    let two = Map { width: 101, height: 1, values };
    let total: f64 = 11.0 * 9.0 + 89.0;
    assert!((two.concentration() - 99.0 / total).abs() < 1e-12);
    let entropy = -(99.0 / total * (9.0 / total).ln() + 89.0 / total * (1.0 / total).ln()) / 101f64.ln();
    assert!((two.entropy() - entropy).abs() < 1e-12);
    let single = Map { width: 1, height: 1, values: vec![4.0] };
    assert_eq!((single.entropy(), single.concentration()), (1.0, 1.0));
    let broken = Map { width: 2, height: 1, values: vec![f32::NAN, 1.0] };
    assert!(broken.entropy().is_finite() && broken.concentration().is_finite());
}

proptest! {
    /// Completeness: the mean of the map and the bias give the logit, for any head and feature map.
    #[test]
    fn the_map_adds_up_to_the_logit(
        (classes, channels, height, width) in (1usize..6, 1usize..40, 1usize..9, 1usize..9),
        seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut draw = |n: usize| -> Vec<f32> {
            (0..n).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u32 << 23) as f32 * 3.0 - 3.0
            }).collect()
        };
        let head = LinearHead::new(classes, channels, draw(classes * channels), draw(classes)).unwrap();
        let features = draw(channels * height * width);
        let logits = head.logits(&pool(&features, channels));
        for (class, logit) in logits.iter().enumerate() {
            let map = class_activation_map(&features, [channels, height, width], &head, class);
            prop_assert!(completeness_residual(&map, &head, class, *logit) < 1e-5);
        }
    }

    /// Map statistics ignore scale and offset; the normalised map spans 0 to 1 and keeps the order.
    #[test]
    fn shape_numbers_ignore_scale_and_offset(
        values in proptest::collection::vec(-8i8..8, 12..60),
        scale in 0.5f32..4.0,
        offset in -8i8..8,
    ) {
        let of = |f: &dyn Fn(f32) -> f32| Map {
            width: values.len(), height: 1, values: values.iter().map(|v| f(f32::from(*v))).collect(),
        };
        let (plain, moved) = (of(&|v| v), of(&|v| scale * (v + f32::from(offset))));
        prop_assert!((plain.entropy() - moved.entropy()).abs() < 1e-5);
        prop_assert!((plain.concentration() - moved.concentration()).abs() < 1e-5);
        prop_assert!((0.0..=1.0).contains(&plain.entropy()) && (0.0..=1.0).contains(&plain.concentration()));
        let level = moved.normalised();
        prop_assert!(level.values.iter().all(|v| (0.0..=1.0).contains(v)));
        prop_assert_eq!(level.order(), plain.order());
    }
}
