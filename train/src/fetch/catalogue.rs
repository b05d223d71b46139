//! The public data sets that can be fetched: addresses of their authors, and what the files must be.
//!
//! Checksums are those of the files that are read, not of the archives, which mirrors repack. They are MD5 because the
//! world has published MD5 for these files; they guard against damage, not against an attacker.

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// Name, as `excon data fetch` takes it.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Address of the archive.
    pub address: &'static str,
    /// Folder that the files lie in, in the archive and after fetching.
    pub folder: &'static str,
    /// Size of the archive as published, about; bytes.
    pub download: u64,
    /// Files that must be there.
    pub files: &'static [Expected],
    /// Number of pictures in files of their own, where there are any.
    pub pictures: Option<usize>,
    /// Whether it is a corrupted test set, for `excon evaluate --corrupted`.
    pub corrupted: bool,
}

/// What a file must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Name below the folder.
    pub name: &'static str,
    /// Its size, bytes, where it is published or follows from the format.
    pub bytes: Option<u64>,
    /// Its MD5, lower-case hex, where it is published.
    pub md5: Option<&'static str>,
}

const fn listed(name: &'static str, bytes: u64, md5: &'static str) -> Expected {
    Expected { name, bytes: Some(bytes), md5: Some(md5) }
}

const fn array(name: &'static str, md5: &'static str) -> Expected {
    Expected { name, bytes: None, md5: Some(md5) }
}

const fn named(name: &'static str) -> Expected {
    Expected { name, bytes: None, md5: None }
}

/// All of them.
pub const SETS: [Set; 5] = [
    Set {
        name: "cifar-10",
        about: "60,000 pictures of 32×32, 10 classes (Krizhevsky, 2009)",
        address: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        folder: "cifar-10-batches-bin",
        download: 170_052_171,
        files: &[
            listed("data_batch_1.bin", 30_730_000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
            listed("data_batch_2.bin", 30_730_000, "5ea93a67294ea407fff1d09f752e9692"),
            listed("data_batch_3.bin", 30_730_000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
            listed("data_batch_4.bin", 30_730_000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
            listed("data_batch_5.bin", 30_730_000, "53f37980c15c3d472c316c40844f3f0d"),
            listed("test_batch.bin", 30_730_000, "803d5f7f4d78ea53de84dbe85f74fb6d"),
            named("batches.meta.txt"),
        ],
        pictures: None,
        corrupted: false,
    },
    Set {
        name: "cifar-100",
        about: "60,000 pictures of 32×32, 100 classes (Krizhevsky, 2009)",
        address: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        folder: "cifar-100-binary",
        download: 168_513_733,
        files: &[
            listed("train.bin", 153_700_000, "6172c7755cfe09b2fe270c85cebc1b15"),
            listed("test.bin", 30_740_000, "4499cfba6c016c1be1438163640a0898"),
            named("fine_label_names.txt"),
        ],
        pictures: None,
        corrupted: false,
    },
    Set {
        name: "tiny-imagenet",
        about: "100,000 pictures of 64×64, 200 classes, with boxes (Stanford CS231N)",
        address: "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
        folder: "tiny-imagenet-200",
        download: 248_100_043,
        files: &[named("wnids.txt"), named("words.txt"), named("val/val_annotations.txt")],
        pictures: Some(120_000),
        corrupted: false,
    },
    Set {
        name: "cifar-10-c",
        about: "CIFAR-10's test pictures under 19 corruptions × 5 severities (Hendrycks and Dietterich, 2019)",
        address: "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar",
        folder: "CIFAR-10-C",
        download: 2_918_471_680,
        files: &[
            array("brightness.npy", "0a81ef75e0b523c3383219c330a85d48"),
            array("contrast.npy", "3c8262171c51307f916c30a3308235a8"),
            array("defocus_blur.npy", "7d1322666342a0702b1957e92f6254bc"),
            array("elastic_transform.npy", "9421657c6cd452429cf6ce96cc412b5f"),
            array("fog.npy", "7b397314b5670f825465fbcd1f6e9ccd"),
            array("frost.npy", "31f6ab3bce1d9934abfb0cc13656f141"),
            array("gaussian_blur.npy", "c33370155bc9b055fb4a89113d3c559d"),
            array("gaussian_noise.npy", "ecaf8b9a2399ffeda7680934c33405fd"),
            array("glass_blur.npy", "7361fb4019269e02dbf6925f083e8629"),
            array("impulse_noise.npy", "2090e01c83519ec51427e65116af6b1a"),
            array("jpeg_compression.npy", "2b9cc4c864e0193bb64db8d7728f8187"),
            array("labels.npy", "c439b113295ed5254878798ffe28fd54"),
            array("motion_blur.npy", "fffa5f852ff7ad299cfe8a7643f090f4"),
            array("pixelate.npy", "0f14f7e2db14288304e1de10df16832f"),
            array("saturate.npy", "1cfae0964219c5102abbb883e538cc56"),
            array("shot_noise.npy", "3a7239bb118894f013d9bf1984be7f11"),
            array("snow.npy", "bb238de8555123da9c282dea23bd6e55"),
            array("spatter.npy", "8a5a3903a7f8f65b59501a6093b4311e"),
            array("speckle_noise.npy", "ef00b87611792b00df09c0b0237a1e30"),
            array("zoom_blur.npy", "6ea8e63f1c5cdee1517533840641641b"),
        ],
        pictures: None,
        corrupted: true,
    },
    Set {
        name: "cifar-100-c",
        about: "CIFAR-100's test pictures under 19 corruptions × 5 severities (Hendrycks and Dietterich, 2019)",
        address: "https://zenodo.org/records/3555552/files/CIFAR-100-C.tar",
        folder: "CIFAR-100-C",
        download: 2_918_473_216,
        files: &[
            array("brightness.npy", "f22d7195aecd6abb541e27fca230c171"),
            array("contrast.npy", "322bb385f1d05154ee197ca16535f71e"),
            array("defocus_blur.npy", "d923e3d9c585a27f0956e2f2ad832564"),
            array("elastic_transform.npy", "a0792bd6581f6810878be71acedfc65a"),
            array("fog.npy", "4efc7ebd5e82b028bdbe13048e3ea564"),
            array("frost.npy", "3a39c6823bdfaa0bf8b12fe7004b8117"),
            array("gaussian_blur.npy", "5204ba0d557839772ef5a4196a052c3e"),
            array("gaussian_noise.npy", "ecc4d366eac432bdf25c024086f5e97d"),
            array("glass_blur.npy", "0bf384f38e5ccbf8dd479d9059b913e1"),
            array("impulse_noise.npy", "3b3c210ddfa0b5cb918ff4537a429fef"),
            array("jpeg_compression.npy", "c851b7f1324e1d2ffddeb76920576d11"),
            array("labels.npy", "bb4026e9ce52996b95f439544568cdb2"),
            array("motion_blur.npy", "732a7e2e54152ff97c742d4c388c5516"),
            array("pixelate.npy", "96c00c60f144539e14cffb02ddbd0640"),
            array("saturate.npy", "c0697e9fdd646916a61e9c312c77bf6b"),
            array("shot_noise.npy", "b0a1fa6e1e465a747c1b204b1914048a"),
            array("snow.npy", "0237be164583af146b7b144e73b43465"),
            array("spatter.npy", "12ccf41d62564d36e1f6a6ada5022728"),
            array("speckle_noise.npy", "e3f215b1a0f9fd9fd6f0d1cf94a7ce99"),
            array("zoom_blur.npy", "0204613400c034a81c4830d5df81cb82"),
        ],
        pictures: None,
        corrupted: true,
    },
];
