#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;
use serde_json::json;

const SIZE: usize = 2;

fn read(body: &[u8], header: Option<usize>) -> Result<Request, String> {
    parse(body, header, "input", SIZE, 4)
}

fn tensor(data: Value) -> Vec<u8> {
    let input = json!({ "name": "input", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": data });
    serde_json::to_vec(&json!({ "id": "a", "inputs": [input] })).unwrap()
}

/// A request with binary data: JSON, bytes, length of the JSON.
fn binary(shape: &[usize], datatype: &str, bytes: &[u8]) -> (Vec<u8>, usize) {
    let parameters = json!({ "binary_data_size": bytes.len() });
    let input = json!({ "name": "input", "shape": shape, "datatype": datatype, "parameters": parameters });
    let mut body = serde_json::to_vec(&json!({ "inputs": [input] })).unwrap();
    let length = body.len();
    body.extend(bytes);
    (body, length)
}

#[test]
fn flat_nested_and_binary_values_are_the_same_tensor() {
    let values: Vec<f32> = (0..12).map(|v| v as f32 / 4.0 - 1.0).collect();
    let flat = read(&tensor(json!(values)), None).unwrap();
    let nested: Vec<Vec<&[f32]>> = vec![values.chunks(2).collect()];
    let nested = read(&tensor(json!(nested)), None).unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let (body, length) = binary(&[1, 3, 2, 2], "FP32", &bytes);
    let binary = read(&body, Some(length)).unwrap();
    assert_eq!(flat.input, Input::Tensor(values));
    assert_eq!((&flat.input, &flat.input), (&nested.input, &binary.input));
    assert_eq!((flat.id.as_deref(), binary.id, flat.watch), (Some("a"), None, true));
}

#[test]
fn raw_pictures_come_in_any_size() {
    let (body, length) = binary(&[2, 3, 5, 3], "UINT8", &[7; 90]);
    let request = read(&body, Some(length)).unwrap();
    assert_eq!(request.input, Input::Pictures { height: 3, width: 5, rgb: vec![7; 90] });
    assert_eq!(request.count, 2);
}

#[test]
fn malformed_requests_are_named() {
    let expect = |body: &[u8], header, words: &str| {
        let error = read(body, header).unwrap_err();
        assert!(error.contains(words), "`{words}` is not in: {error}");
    };
    expect(b"", None, "JSON");
    expect(b"{}", None, "inputs");
    expect(br#"{"inputs":[]}"#, None, "0 inputs");
    expect(&tensor(json!([1.0])), None, "1 values where the shape needs 12");
    expect(&tensor(json!("text")), None, "numbers");
    expect(&tensor(json!(null)), None, "neither");
    expect(&tensor(json!([[[1.0], ["x"]]])), None, "numbers");
    expect(&tensor(json!(vec![1e39; 12])), None, "not finite");
    expect(b"{}", Some(3), "longer than the body");
    let (body, length) = binary(&[1, 3, 2, 2], "FP32", &[0; 47]);
    expect(&body, Some(length), "47 bytes");
    expect(&body[..body.len() - 1], Some(length), "ends before");
    expect(&[&body[..], b"x"].concat(), Some(length), "belong to no input");
    let nan = f32::NAN.to_le_bytes().repeat(12);
    let (body, length) = binary(&[1, 3, 2, 2], "FP32", &nan);
    expect(&body, Some(length), "not finite");
    for (shape, datatype, words) in [
        (&[5, 3, 2, 2][..], "FP32", "batch of 5"),
        (&[0, 3, 2, 2], "FP32", "batch of 0"),
        (&[1, 3, 2, 3], "FP32", "not taken"),
        (&[1, 3, 2, 2], "FP64", "not taken"),
        (&[1, 0, 2, 3], "UINT8", "not taken"),
        (&[1, usize::MAX, usize::MAX, 3], "UINT8", "overflows"),
    ] {
        let (body, length) = binary(shape, datatype, &[]);
        expect(&body, Some(length), words);
    }
}

#[test]
fn answers_are_json_or_bytes_as_asked() {
    let outputs = [
        Output { name: "class", shape: vec![1], values: Values::Integer(vec![2]) },
        Output { name: "label", shape: vec![1], values: Values::Text(vec!["lid".into()]) },
    ];
    let mut request = read(&tensor(json!(vec![0.5; 12])), None).unwrap();
    let (bytes, header) = answer(&request, "a", "tiny", 3, &outputs).unwrap();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((header, &value["outputs"][1]["data"]), (None, &json!(["lid"])));
    assert_eq!((&value["model_version"], &value["outputs"][0]["datatype"]), (&json!("3"), &json!("INT64")));

    request.outputs = vec![("label".into(), true), ("class".into(), false)];
    let (bytes, header) = answer(&request, "a", "tiny", 3, &outputs).unwrap();
    let (json_part, tail) = bytes.split_at(header.unwrap());
    let value: Value = serde_json::from_slice(json_part).unwrap();
    assert_eq!(value["outputs"][0]["parameters"]["binary_data_size"], 7);
    assert_eq!((tail, &value["outputs"][1]["data"]), (&b"\x03\0\0\0lid"[..], &json!([2])));

    request.outputs = vec![("softmax".into(), false)];
    assert!(answer(&request, "a", "tiny", 3, &outputs).unwrap_err().contains("class, label"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200), header in proptest::option::of(0usize..300)) {
        let _ = read(&body, header);
    }

    #[test]
    fn no_change_of_a_good_request_makes_it_panic(at in 0usize..200, to in any::<u8>()) {
        let mut body = tensor(json!(vec![0.5; 12]));
        let place = at % body.len();
        body[place] = to;
        let _ = read(&body, None);
    }
}
