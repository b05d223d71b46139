// TensorRT played on a processor, for tests, on CUDA played beside it: the real shim stands on it, networks are really computed, and it
// fails in the ways the real ones do. What it is to do wrong stands in EXCON_MOCK, as words with commas between:
//   devices=N cuda=CODE capability=A.B driver=N dla=N library=NUMBER   what is found
//   parse=NODE build=memory|hang slow=MS                               building
//   plan=refuse context=refuse                                         loading
//   enqueue=refuse capture=refuse stream=hang|error output=nan|garbage running
#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mock.h"
#include "network.h"

using namespace nvinfer1;
using mock::capability;
using mock::number;
using mock::of;
using mock::setting;

namespace {

bool has_int8() {
    int major = 0, minor = 0;
    capability(major, minor);
    return major > 6 || (major == 6 && minor == 1);
}

// What stands at the head of a plan, before the network's own bytes.
struct PlanHead {
    char magic[8];
    int32_t version, major, minor, half;
};
constexpr char kMagic[8] = {'m', 'o', 'c', 'k', 'p', 'l', 'a', 'n'};

class Tensor : public ITensor {
public:
    std::string name;
    std::vector<int64_t> shape;
    char const* getName() const override { return name.c_str(); }
    Dims getDimensions() const override {
        Dims dims{};
        dims.nbDims = static_cast<int32_t>(shape.size());
        for (size_t i = 0; i < shape.size(); ++i) dims.d[i] = static_cast<int32_t>(shape[i]);
        return dims;
    }
    DataType getType() const override { return DataType::kFLOAT; }
    bool isShapeTensor() const override { return false; }
#if NV_TENSORRT_MAJOR < 11
    void setType(DataType) override {}
#endif
};

class Layer : public ILayer {
public:
    std::vector<ITensor*> inputs, outputs;
    std::string op;
    bool exact = false;
    int32_t getNbInputs() const override { return static_cast<int32_t>(inputs.size()); }
    ITensor* getInput(int32_t i) const override { return inputs[static_cast<size_t>(i)]; }
    int32_t getNbOutputs() const override { return static_cast<int32_t>(outputs.size()); }
    ITensor* getOutput(int32_t i) const override { return outputs[static_cast<size_t>(i)]; }
#if NV_TENSORRT_MAJOR < 11
    void setPrecision(DataType type) override { exact = type == DataType::kFLOAT; }
    void setOutputType(int32_t, DataType) override {}
#endif
};

class Definition : public INetworkDefinition {
public:
    mock::Network network;
    std::string bytes;
    std::map<std::string, Tensor> tensors;
    std::vector<std::unique_ptr<Layer>> layers;
    std::vector<ITensor*> outputs;
    int32_t getNbInputs() const override { return 1; }
    ITensor* getInput(int32_t) const override { return const_cast<Tensor*>(&tensors.at(network.input)); }
    int32_t getNbOutputs() const override { return static_cast<int32_t>(outputs.size()); }
    ITensor* getOutput(int32_t i) const override { return outputs[static_cast<size_t>(i)]; }
    int32_t getNbLayers() const override { return static_cast<int32_t>(layers.size()); }
    ILayer* getLayer(int32_t i) const override { return layers[static_cast<size_t>(i)].get(); }

    Tensor* tensor(std::string const& name) {
        Tensor& tensor = tensors[name];
        tensor.name = name;
        return &tensor;
    }
};

class Config : public IBuilderConfig {
public:
    std::set<int32_t> flags{static_cast<int32_t>(BuilderFlag::kTF32)};
    std::map<ILayer const*, DeviceType> devices;
    DeviceType device = DeviceType::kGPU;
    bool has(BuilderFlag flag) const { return flags.count(static_cast<int32_t>(flag)) != 0; }
    void setFlag(BuilderFlag flag) override { flags.insert(static_cast<int32_t>(flag)); }
    void clearFlag(BuilderFlag flag) override { flags.erase(static_cast<int32_t>(flag)); }
    void setDefaultDeviceType(DeviceType type) override { device = type; }
    void setDeviceType(ILayer const* layer, DeviceType type) override { devices[layer] = type; }
    DeviceType getDeviceType(ILayer const* layer) const override {
        auto const found = devices.find(layer);
        return found == devices.end() ? device : found->second;
    }
    bool canRunOnDLA(ILayer const* layer) const override {
        std::string const& op = static_cast<Layer const*>(layer)->op;
        return op == "Conv" || op == "Relu" || op == "Add";
    }
    void setDLACore(int32_t) override {}
#if MOCK_AT_LEAST(8, 4)
    void setMemoryPoolLimit(MemoryPoolType, size_t) override {}
#else
    void setMaxWorkspaceSize(size_t) override {}
#endif
#if MOCK_AT_LEAST(10, 3)
    IProgressMonitor* monitor = nullptr;
    void setProgressMonitor(IProgressMonitor* wanted) override { monitor = wanted; }
#endif
};

class Memory : public IHostMemory {
public:
    std::string bytes;
    void* data() const override { return const_cast<char*>(bytes.data()); }
    size_t size() const override { return bytes.size(); }
};

class Builder : public IBuilder {
public:
    explicit Builder(ILogger* logger) : logger(logger) {}
    INetworkDefinition* createNetworkV2(uint32_t flags) override {
        bool const explicit_batch = (flags & 1) != 0;
        return explicit_batch == (NV_TENSORRT_MAJOR < 10) ? new Definition : nullptr;
    }
    IBuilderConfig* createBuilderConfig() override { return new Config; }
    int32_t getNbDLACores() const override { return number("dla", 0); }
    IHostMemory* buildSerializedNetwork(INetworkDefinition& definition, IBuilderConfig& configuration) override {
        auto& defined = static_cast<Definition&>(definition);
        auto& config = static_cast<Config&>(configuration);
        auto refuse = [&](char const* why) {
            logger->log(ILogger::Severity::kERROR, why);
            return nullptr;
        };
        while (setting("build") == "hang") std::this_thread::sleep_for(std::chrono::milliseconds(5));
        if (setting("build") == "memory") return refuse("Tactic needs 1073741824 bytes; out of memory");
        bool half = false;
#if NV_TENSORRT_MAJOR < 11
        half = config.has(BuilderFlag::kFP16);
        if (defined.network.quantized() && !config.has(BuilderFlag::kINT8)) {
            return refuse("Q/DQ layers are there and the int8 flag is not set");
        }
        bool const obeyed = config.has(BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
#else
        bool const obeyed = true;
#endif
        if (defined.network.quantized() && !has_int8()) return refuse("Int8 precision is not supported by the platform");
        if (config.has(BuilderFlag::kTF32)) half = true;
#if MOCK_AT_LEAST(10, 3)
        int32_t const steps = 4;
        if (config.monitor != nullptr) {
            config.monitor->phaseStart("Building", nullptr, steps);
            for (int32_t step = 0; step < steps; ++step) {
                std::this_thread::sleep_for(std::chrono::milliseconds(number("slow", 0)));
                if (!config.monitor->stepComplete("Building", step)) return nullptr;
            }
            config.monitor->phaseFinish("Building");
        }
#endif
        PlanHead head{};
        std::memcpy(head.magic, kMagic, sizeof kMagic);
        head.version = NV_TENSORRT_VERSION;
        capability(head.major, head.minor);
        head.half = half;
        auto plan = std::make_unique<Memory>();
        plan->bytes.assign(reinterpret_cast<char const*>(&head), sizeof head);
        for (auto const& layer : defined.layers) plan->bytes.push_back(layer->exact && obeyed ? '1' : '0');
        plan->bytes.push_back('.');
        plan->bytes += defined.bytes;
        return plan.release();
    }

private:
    ILogger* logger;
};

class ParserError : public nvonnxparser::IParserError {
public:
    std::string words;
    int position = -1;
    char const* desc() const override { return words.c_str(); }
    int node() const override { return position; }
};

class Parser : public nvonnxparser::IParser {
public:
    Parser(Definition* to) : to(to) {}
    bool parse(void const* model, size_t size, char const*) override {
        try {
            to->network = mock::Network::read(model, size);
        } catch (std::exception const& e) {
            return refuse(-1, std::string("Failed to parse: ") + e.what());
        }
        to->bytes.assign(static_cast<char const*>(model), size);
        mock::Network const& network = to->network;
        to->tensor(network.input)->shape = network.input_shape;
        int const refused = number("parse", -1);
        for (size_t i = 0; i < network.nodes.size(); ++i) {
            mock::Node const& node = network.nodes[i];
            int const position = static_cast<int>(i);
            if (position == refused) return refuse(position, "Assertion failed: the node is not supported");
            if (node.op == "QuantizeLinear" || node.op == "DequantizeLinear") {
                auto const found = network.constants.find(node.inputs.size() > 2 ? node.inputs[2] : "");
                if (found == network.constants.end()) return refuse(position, "a zero point is needed");
                mock::Tensor const& zero = found->second;
                if (zero.type != 3) return refuse(position, "UINT8 is not supported");
                if (std::any_of(zero.values.begin(), zero.values.end(), [](float v) { return v != 0; })) {
                    return refuse(position, "only symmetric quantization is supported: zero points must be 0");
                }
                bool const stored = network.constants.count(node.inputs[0]) != 0;
                if (node.op[0] == 'D' && stored) return refuse(position, "weights are given as float behind Q/DQ");
            }
            auto layer = std::make_unique<Layer>();
            layer->op = node.op;
            for (std::string const& name : node.inputs) layer->inputs.push_back(to->tensor(name));
            for (std::string const& name : node.outputs) layer->outputs.push_back(to->tensor(name));
            to->layers.push_back(std::move(layer));
        }
        for (std::string const& name : network.outputs) to->outputs.push_back(to->tensor(name));
        return true;
    }
    int getNbErrors() const override { return error.words.empty() ? 0 : 1; }
    nvonnxparser::IParserError const* getError(int) const override { return &error; }

private:
    bool refuse(int position, std::string const& why) {
        error.words = why;
        error.position = position;
        return false;
    }
    Definition* to;
    ParserError error;
};

class Engine : public ICudaEngine {
public:
    mock::Network network;
    bool half = false;
    std::vector<std::string> names;
    std::vector<int64_t> const& shape(std::string const& name) const {
        return name == network.input ? network.input_shape : network.output_shapes.at(name);
    }
    IExecutionContext* createExecutionContext() override;
    Dims dims(std::string const& name) const {
        Tensor tensor;
        tensor.shape = shape(name);
        // The outputs' batch may stand there as a word.
        if (!tensor.shape.empty() && tensor.shape[0] < 0) tensor.shape[0] = 1;
        return tensor.getDimensions();
    }
#if MOCK_AT_LEAST(8, 5)
    int32_t getNbIOTensors() const override { return static_cast<int32_t>(names.size()); }
    char const* getIOTensorName(int32_t i) const override { return names[static_cast<size_t>(i)].c_str(); }
    TensorIOMode getTensorIOMode(char const* name) const override {
        return name == network.input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    Dims getTensorShape(char const* name) const override { return dims(name); }
    DataType getTensorDataType(char const*) const override { return DataType::kFLOAT; }
#endif
#if NV_TENSORRT_MAJOR < 10
    int32_t getNbBindings() const override { return static_cast<int32_t>(names.size()); }
    char const* getBindingName(int32_t i) const override { return names[static_cast<size_t>(i)].c_str(); }
    bool bindingIsInput(int32_t i) const override { return names[static_cast<size_t>(i)] == network.input; }
    Dims getBindingDimensions(int32_t i) const override { return dims(names[static_cast<size_t>(i)]); }
    DataType getBindingDataType(int32_t) const override { return DataType::kFLOAT; }
#endif
};

class Context : public IExecutionContext {
public:
    explicit Context(Engine const* engine) : engine(engine) {}
    std::map<std::string, void*> addresses;
    bool enqueue(cudaStream_t stream) {
        if (setting("enqueue") == "refuse") return false;
        of(stream)->put([this] { compute(); });
        return true;
    }
    void compute() {
        int64_t count = 1;
        for (int64_t side : engine->network.input_shape) count *= side;
        auto const* image = static_cast<float const*>(addresses.at(engine->network.input));
        auto const values = engine->network.run({image, image + count}, engine->half);
        std::string const wrong = setting("output");
        for (std::string const& name : engine->network.outputs) {
            std::vector<float> const& from = values.at(name).values;
            auto* to = static_cast<float*>(addresses.at(name));
            std::copy(from.begin(), from.end(), to);
            if (wrong == "nan") to[0] = NAN;
            if (wrong == "garbage") std::fill(to, to + from.size(), 0.75F);
        }
    }
#if MOCK_AT_LEAST(8, 5)
    bool setTensorAddress(char const* name, void* address) override {
        addresses[name] = address;
        return true;
    }
    bool enqueueV3(cudaStream_t stream) override { return enqueue(stream); }
#endif
#if NV_TENSORRT_MAJOR < 10
    bool enqueueV2(void* const* bindings, cudaStream_t stream, cudaEvent_t*) override {
        for (size_t i = 0; i < engine->names.size(); ++i) addresses[engine->names[i]] = bindings[i];
        return enqueue(stream);
    }
#endif

private:
    Engine const* engine;
};

IExecutionContext* Engine::createExecutionContext() {
    return setting("context") == "refuse" ? nullptr : new Context(this);
}

class Runtime : public IRuntime {
public:
    explicit Runtime(ILogger* logger) : logger(logger) {}
    ICudaEngine* deserializeCudaEngine(void const* plan, size_t size) override {
        auto refuse = [&](char const* why) {
            logger->log(ILogger::Severity::kERROR, why);
            return nullptr;
        };
        PlanHead head{};
        if (size < sizeof head) return refuse("the plan is too short");
        std::memcpy(&head, plan, sizeof head);
        if (std::memcmp(head.magic, kMagic, sizeof kMagic) != 0) return refuse("the plan has no magic tag");
        int major = 0, minor = 0;
        capability(major, minor);
        if (head.version != NV_TENSORRT_VERSION) return refuse("the plan was made by another version");
        if (head.major != major || head.minor != minor) return refuse("the plan was made for another device");
        if (setting("plan") == "refuse") return refuse("Serialization assertion failed");
        auto const* rest = static_cast<char const*>(plan) + sizeof head;
        auto const* end = static_cast<char const*>(plan) + size;
        auto const* dot = static_cast<char const*>(std::memchr(rest, '.', static_cast<size_t>(end - rest)));
        if (dot == nullptr) return refuse("the plan is torn");
        auto engine = std::make_unique<Engine>();
        try {
            engine->network = mock::Network::read(dot + 1, static_cast<size_t>(end - dot - 1));
        } catch (std::exception const&) {
            return refuse("the plan is torn");
        }
        engine->half = head.half != 0;
        for (size_t i = 0; i < engine->network.nodes.size(); ++i) engine->network.nodes[i].head = rest[i] == '1';
        engine->names = engine->network.outputs;
        engine->names.insert(engine->names.begin(), engine->network.input);
        return engine.release();
    }

private:
    ILogger* logger;
};

} // namespace

extern "C" {

int32_t getInferLibVersion() noexcept { return number("library", NV_TENSORRT_VERSION); }

void* createNvOnnxParser_INTERNAL(void* network, void*, int) {
    return static_cast<nvonnxparser::IParser*>(new Parser(static_cast<Definition*>(static_cast<INetworkDefinition*>(network))));
}

} // extern "C"

namespace nvinfer1 {

// Without a device the real ones crash or return what is no pointer: nobody may come here then.
extern "C" void* createInferBuilder_INTERNAL(void* logger, int32_t) noexcept {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) std::abort();
    return static_cast<IBuilder*>(new Builder(static_cast<ILogger*>(logger)));
}

extern "C" void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) std::abort();
    return static_cast<IRuntime*>(new Runtime(static_cast<ILogger*>(logger)));
}

} // namespace nvinfer1
