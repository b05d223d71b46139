// A small reader and interpreter of the ONNX files that ExCon networks are: what the mock computes with. It is written
// for clearness, apart from the Rust readers, so that an error would have to be made twice.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace mock {

struct Tensor {
    int32_t type = 1; // as ONNX numbers it: 1 float, 2 uint8, 3 int8, 7 int64
    std::vector<int64_t> shape;
    std::vector<float> values;
};

struct Node {
    std::string name, op;
    std::vector<std::string> inputs, outputs;
    std::map<std::string, std::vector<int64_t>> ints;
    bool head = false;  // held in 32-bit float
};

struct Network {
    std::vector<Node> nodes;
    std::map<std::string, Tensor> constants;
    std::string input;
    std::vector<int64_t> input_shape;
    std::vector<std::string> outputs;
    std::map<std::string, std::vector<int64_t>> output_shapes;

    // Throws std::runtime_error where the bytes are no such file.
    static Network read(void const* bytes, size_t size);
    bool quantized() const;
    // All values by name; `half` rounds what is computed to 16-bit float, except in the head.
    std::map<std::string, Tensor> run(std::vector<float> const& image, bool half) const;
};

} // namespace mock
