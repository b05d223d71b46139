#include "network.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace mock {
namespace {

// Protobuf: fields as (number, bytes or number).
struct Reader {
    uint8_t const* at;
    uint8_t const* end;

    uint64_t varint() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at == end) throw std::runtime_error("torn");
            uint8_t const byte = *at++;
            value |= static_cast<uint64_t>(byte & 0x7F) << shift;
            if (byte < 0x80) return value;
        }
        throw std::runtime_error("a number is too long");
    }
    // Returns false at the end; `inner` holds a field of bytes, `number` one of numbers.
    bool next(uint32_t& field, Reader& inner, uint64_t& number) {
        if (at == end) return false;
        uint64_t const key = varint();
        field = static_cast<uint32_t>(key >> 3);
        inner = {at, at};
        switch (key & 7) {
        case 0: number = varint(); return true;
        case 1: skip(8); return true;
        case 5: skip(4); return true;
        case 2: {
            uint64_t const length = varint();
            if (length > static_cast<uint64_t>(end - at)) throw std::runtime_error("torn");
            inner = {at, at + length};
            at += length;
            return true;
        }
        default: throw std::runtime_error("not protobuf");
        }
    }
    void skip(size_t count) {
        if (count > static_cast<size_t>(end - at)) throw std::runtime_error("torn");
        at += count;
    }
    std::string text() const { return {reinterpret_cast<char const*>(at), static_cast<size_t>(end - at)}; }
    // A repeated number: packed, or one.
    void into(std::vector<int64_t>& list, uint64_t number) {
        if (at == end) {
            list.push_back(static_cast<int64_t>(number));
            return;
        }
        while (at != end) list.push_back(static_cast<int64_t>(varint()));
    }
};

template <typename Each> void fields(Reader reader, Each each) {
    uint32_t field = 0;
    uint64_t number = 0;
    Reader inner{};
    while (reader.next(field, inner, number)) each(field, inner, number);
}

int64_t volume(std::vector<int64_t> const& shape) {
    int64_t product = 1;
    for (int64_t side : shape) product *= side;
    return product;
}

std::pair<std::string, Tensor> tensor(Reader reader) {
    std::string name;
    std::string raw;
    Tensor tensor;
    fields(reader, [&](uint32_t field, Reader inner, uint64_t number) {
        if (field == 1) inner.into(tensor.shape, number);
        if (field == 2) tensor.type = static_cast<int32_t>(number);
        if (field == 8) name = inner.text();
        if (field == 9) raw = inner.text();
    });
    size_t const count = static_cast<size_t>(volume(tensor.shape));
    size_t const width = tensor.type == 1 ? 4 : tensor.type == 7 ? 8 : 1;
    if (raw.size() != count * width) throw std::runtime_error("a tensor has another size than its shape");
    for (size_t i = 0; i < count; ++i) {
        float value = 0;
        if (tensor.type == 1) std::memcpy(&value, &raw[4 * i], 4);
        if (tensor.type == 2) value = static_cast<uint8_t>(raw[i]);
        if (tensor.type == 3) value = static_cast<int8_t>(raw[i]);
        if (tensor.type == 7) {
            int64_t whole = 0;
            std::memcpy(&whole, &raw[8 * i], 8);
            value = static_cast<float>(whole);
        }
        tensor.values.push_back(value);
    }
    return {name, tensor};
}

Node node(Reader reader) {
    Node node;
    fields(reader, [&](uint32_t field, Reader inner, uint64_t) {
        if (field == 1) node.inputs.push_back(inner.text());
        if (field == 2) node.outputs.push_back(inner.text());
        if (field == 3) node.name = inner.text();
        if (field == 4) node.op = inner.text();
        if (field == 5) {
            std::string name;
            std::vector<int64_t> values;
            fields(inner, [&](uint32_t field, Reader inner, uint64_t number) {
                if (field == 1) name = inner.text();
                if (field == 3) values = {static_cast<int64_t>(number)};
                if (field == 8) inner.into(values, number);
            });
            node.ints[name] = values;
        }
    });
    return node;
}

// Name and shape; a side without a fixed value is -1.
std::pair<std::string, std::vector<int64_t>> value(Reader reader) {
    std::string name;
    std::vector<int64_t> shape;
    auto dimension = [&](uint32_t field, Reader inner, uint64_t) {
        if (field != 1) return;
        int64_t side = -1;
        fields(inner, [&](uint32_t field, Reader, uint64_t number) {
            if (field == 1) side = static_cast<int64_t>(number);
        });
        shape.push_back(side);
    };
    fields(reader, [&](uint32_t field, Reader inner, uint64_t) {
        if (field == 1) name = inner.text();
        if (field != 2) return;
        fields(inner, [&](uint32_t field, Reader inner, uint64_t) {
            if (field != 1) return;
            fields(inner, [&](uint32_t field, Reader inner, uint64_t) {
                if (field == 2) fields(inner, dimension);
            });
        });
    });
    return {name, shape};
}

float to_half(float x) {
    uint32_t bits = 0;
    std::memcpy(&bits, &x, 4);
    bits += 0xFFF + (bits >> 13 & 1);
    bits &= ~0x1FFFU;
    std::memcpy(&x, &bits, 4);
    return x;
}

int64_t attribute(Node const& node, char const* name, size_t i, int64_t otherwise) {
    auto const found = node.ints.find(name);
    return found == node.ints.end() || found->second.size() <= i ? otherwise : found->second[i];
}

// A window over a padded map: `take` sees (output channel, input channel, kernel position, value) where there is one.
template <typename Take> Tensor window(Tensor const& x, Node const& node, int64_t outputs, int64_t kh, int64_t kw, float start, Take take) {
    int64_t const sh = attribute(node, "strides", 0, 1), sw = attribute(node, "strides", 1, 1);
    int64_t const dh = attribute(node, "dilations", 0, 1), dw = attribute(node, "dilations", 1, 1);
    int64_t const top = attribute(node, "pads", 0, 0), left = attribute(node, "pads", 1, 0);
    int64_t const bottom = attribute(node, "pads", 2, 0), right = attribute(node, "pads", 3, 0);
    int64_t const h = x.shape[2], w = x.shape[3];
    int64_t const oh = (h + top + bottom - dh * (kh - 1) - 1) / sh + 1;
    int64_t const ow = (w + left + right - dw * (kw - 1) - 1) / sw + 1;
    Tensor y{1, {1, outputs, oh, ow}, std::vector<float>(static_cast<size_t>(outputs * oh * ow), start)};
    for (int64_t o = 0; o < outputs; ++o) {
        for (int64_t r = 0; r < oh; ++r) {
            for (int64_t c = 0; c < ow; ++c) {
                float& sum = y.values[static_cast<size_t>((o * oh + r) * ow + c)];
                take(sum, o, [&](int64_t channel, int64_t i, int64_t j, float& found) {
                    int64_t const row = r * sh + i * dh - top, column = c * sw + j * dw - left;
                    if (row < 0 || row >= h || column < 0 || column >= w) return false;
                    found = x.values[static_cast<size_t>((channel * h + row) * w + column)];
                    return true;
                });
            }
        }
    }
    return y;
}

Tensor convolve(Tensor const& x, Tensor const& weight, Tensor const* bias, Node const& node) {
    int64_t const outputs = weight.shape[0], inner = weight.shape[1], kh = weight.shape[2], kw = weight.shape[3];
    int64_t const per_group = outputs / attribute(node, "group", 0, 1);
    return window(x, node, outputs, kh, kw, 0, [&](float& sum, int64_t o, auto at) {
        double total = bias == nullptr ? 0 : bias->values[static_cast<size_t>(o)];
        for (int64_t k = 0; k < inner; ++k) {
            for (int64_t i = 0; i < kh; ++i) {
                for (int64_t j = 0; j < kw; ++j) {
                    float found = 0;
                    if (!at(o / per_group * inner + k, i, j, found)) continue;
                    total += static_cast<double>(found) * weight.values[static_cast<size_t>(((o * inner + k) * kh + i) * kw + j)];
                }
            }
        }
        sum = static_cast<float>(total);
    });
}

Tensor largest(Tensor const& x, Node const& node) {
    int64_t const kh = attribute(node, "kernel_shape", 0, 1), kw = attribute(node, "kernel_shape", 1, 1);
    return window(x, node, x.shape[1], kh, kw, -INFINITY, [&](float& most, int64_t o, auto at) {
        for (int64_t i = 0; i < kh; ++i) {
            for (int64_t j = 0; j < kw; ++j) {
                float found = 0;
                if (at(o, i, j, found)) most = std::max(most, found);
            }
        }
    });
}

Tensor mean(Tensor const& x) {
    int64_t const channels = x.shape[1], cells = volume(x.shape) / channels;
    Tensor y{1, {1, channels, 1, 1}, {}};
    for (int64_t c = 0; c < channels; ++c) {
        double sum = 0;
        for (int64_t i = 0; i < cells; ++i) sum += x.values[static_cast<size_t>(c * cells + i)];
        y.values.push_back(static_cast<float>(sum / static_cast<double>(cells)));
    }
    return y;
}

Tensor linear(Tensor const& x, Tensor const& weight, Tensor const& bias) {
    size_t const outputs = bias.values.size(), inner = x.values.size();
    Tensor y{1, {1, static_cast<int64_t>(outputs)}, {}};
    for (size_t o = 0; o < outputs; ++o) {
        double sum = bias.values[o];
        for (size_t i = 0; i < inner; ++i) sum += static_cast<double>(x.values[i]) * weight.values[o * inner + i];
        y.values.push_back(static_cast<float>(sum));
    }
    return y;
}

// Quantizes or dequantizes, by tensor or along axis 0.
Tensor codes(Tensor x, Tensor const& scale, bool quantize) {
    size_t const step = scale.values.size() == 1 ? x.values.size() : x.values.size() / scale.values.size();
    for (size_t i = 0; i < x.values.size(); ++i) {
        float const s = scale.values[i / step];
        x.values[i] = quantize ? std::clamp(std::nearbyint(x.values[i] / s), -128.0F, 127.0F) : x.values[i] * s;
    }
    return x;
}

} // namespace

Network Network::read(void const* bytes, size_t size) {
    Network network;
    auto const* data = static_cast<uint8_t const*>(bytes);
    fields({data, data + size}, [&](uint32_t field, Reader graph, uint64_t) {
        if (field != 7) return;
        fields(graph, [&](uint32_t field, Reader inner, uint64_t) {
            if (field == 1) network.nodes.push_back(node(inner));
            if (field == 5) network.constants.insert(tensor(inner));
            if (field == 11) std::tie(network.input, network.input_shape) = value(inner);
            if (field == 12) {
                auto const [name, shape] = value(inner);
                network.outputs.push_back(name);
                network.output_shapes[name] = shape;
            }
        });
    });
    if (network.nodes.empty()) throw std::runtime_error("there is no graph");
    return network;
}

bool Network::quantized() const {
    return std::any_of(nodes.begin(), nodes.end(), [](Node const& n) { return n.op == "QuantizeLinear"; });
}

std::map<std::string, Tensor> Network::run(std::vector<float> const& image, bool half) const {
    std::map<std::string, Tensor> values = constants;
    values[input] = {1, input_shape, image};
    for (Node const& node : nodes) {
        auto in = [&](size_t i) -> Tensor const& { return values.at(node.inputs.at(i)); };
        Tensor y;
        if (node.op == "Conv") y = convolve(in(0), in(1), node.inputs.size() > 2 ? &in(2) : nullptr, node);
        if (node.op == "MaxPool") y = largest(in(0), node);
        if (node.op == "GlobalAveragePool" || node.op == "ReduceMean") y = mean(in(0));
        if (node.op == "Gemm") y = linear(in(0), in(1), in(2));
        if (node.op == "QuantizeLinear" || node.op == "DequantizeLinear") y = codes(in(0), in(1), node.op[0] == 'Q');
        if (node.op == "Identity") y = in(0);
        if (node.op == "Flatten" || node.op == "Squeeze" || node.op == "Reshape") {
            y = in(0);
            y.shape = {1, volume(y.shape)};
        }
        if (node.op == "Relu" || node.op == "Clip") {
            y = in(0);
            float const low = node.op == "Relu" ? 0 : in(1).values[0];
            float const high = node.op == "Relu" ? INFINITY : in(2).values[0];
            for (float& v : y.values) v = std::clamp(v, low, high);
        }
        if (node.op == "Add") {
            y = in(0);
            for (size_t i = 0; i < y.values.size(); ++i) y.values[i] += in(1).values[i];
        }
        if (half && !node.head) std::transform(y.values.begin(), y.values.end(), y.values.begin(), to_half);
        values[node.outputs.at(0)] = y;
    }
    return values;
}

} // namespace mock
