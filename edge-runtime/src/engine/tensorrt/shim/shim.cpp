// The C ABI of shim.h on TensorRT 8.2 to 11: compiled on the board against its own headers by `excon-edge tensorrt
// setup`. All that differs between versions is in this file, behind `#if`s.
#include "shim.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

// The parser's library is opened for a build alone: with what it needs it takes more memory than the inference.
#ifndef EXCON_TRT_PARSER
#define EXCON_TRT_PARSER "libnvonnxparser.so"
#endif

#define AT_LEAST(major, minor) \
    (NV_TENSORRT_MAJOR > (major) || (NV_TENSORRT_MAJOR == (major) && NV_TENSORRT_MINOR >= (minor)))

using namespace nvinfer1;

namespace {

// The name of the last feature map: what lies behind it is the head.
constexpr char const* kFeatures = "features";

struct Failure : std::runtime_error {
    int32_t code;
    Failure(int32_t code, std::string const& reason) : std::runtime_error(reason), code(code) {}
};

void say(char* error, size_t room, char const* text) {
    if (error == nullptr || room == 0) return;
    size_t const length = std::min(std::strlen(text), room - 1);
    std::memcpy(error, text, length);
    error[length] = '\0';
}

// Runs `work`; whatever is thrown becomes a code and a sentence.
template <typename Work> int32_t guarded(char* error, size_t room, Work&& work) noexcept {
    try {
        work();
        return EXCON_TRT_OK;
    } catch (Failure const& failure) {
        say(error, room, failure.what());
        return failure.code;
    } catch (std::bad_alloc const&) {
        say(error, room, "out of memory");
        return EXCON_TRT_MEMORY;
    } catch (std::exception const& other) {
        say(error, room, other.what());
        return EXCON_TRT_RUN;
    } catch (...) {
        say(error, room, "an unknown C++ exception");
        return EXCON_TRT_RUN;
    }
}

void check(cudaError_t status, char const* what, int32_t code = EXCON_TRT_RUN) {
    if (status == cudaSuccess) return;
    cudaGetLastError();
    if (status == cudaErrorMemoryAllocation) code = EXCON_TRT_MEMORY;
    throw Failure(code, std::string(what) + ": " + cudaGetErrorString(status));
}

void require(bool holds, int32_t code, char const* reason) {
    if (!holds) throw Failure(code, reason);
}

// TensorRT's messages go to the caller; the last error of a step is also kept, for it says why a null pointer came.
class Logger : public ILogger {
public:
    Logger(ExconLog log, void* user) : mLog(log), mUser(user) {}
    void log(Severity severity, char const* text) noexcept override {
        int32_t const level = static_cast<int32_t>(severity);
        try {
            if (level <= 1) mLast = text;
        } catch (...) {
        }
        if (mLog != nullptr) mLog(mUser, level, text);
    }
    void clear() { mLast.clear(); }
    std::string reason(char const* otherwise) const { return mLast.empty() ? otherwise : mLast; }

private:
    ExconLog mLog;
    void* mUser;
    std::string mLast;
};

void select(int32_t device) {
    int32_t count = 0;
    cudaError_t const status = cudaGetDeviceCount(&count);
    check(status, "CUDA finds no device", EXCON_TRT_NO_DEVICE);
    require(device >= 0 && device < count, EXCON_TRT_NO_DEVICE, "CUDA finds no device of this number");
    check(cudaSetDevice(device), "the CUDA device cannot be used", EXCON_TRT_NO_DEVICE);
}

void split(int32_t number, int32_t parts[3]) {
    // 8.6.1 is 8601, 10.3.0 is 100300.
    bool const wide = number >= 10000;
    parts[0] = number / (wide ? 10000 : 1000);
    parts[1] = wide ? number / 100 % 100 : number / 100 % 10;
    parts[2] = number % 100;
}

void copy_name(char (&to)[128], char const* from) { say(to, sizeof to, from == nullptr ? "" : from); }

using CreateParser = void* (*)(void* network, void* logger, int version);

// `dlsym` needs a handle of its own: the library stays open, for TensorRT keeps pointers into it.
CreateParser parser_library() {
    void* library = dlopen(EXCON_TRT_PARSER, RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) throw Failure(EXCON_TRT_PARSE, std::string("the ONNX parser cannot be loaded: ") + dlerror());
    auto create = reinterpret_cast<CreateParser>(dlsym(library, "createNvOnnxParser_INTERNAL"));
    require(create != nullptr, EXCON_TRT_PARSE, "the ONNX parser's library lacks its entry point");
    return create;
}

// Layers behind `features` that compute in floating point: pool and classifier.
std::vector<ILayer*> head_of(INetworkDefinition& network) {
    std::set<ITensor const*> behind;
    for (int32_t i = 0; i < network.getNbOutputs(); ++i) {
        ITensor const* output = network.getOutput(i);
        if (std::strcmp(output->getName(), kFeatures) == 0) behind.insert(output);
    }
    std::vector<ILayer*> head;
    for (int32_t i = 0; i < network.getNbLayers(); ++i) {
        ILayer* layer = network.getLayer(i);
        bool follows = false;
        for (int32_t k = 0; k < layer->getNbInputs(); ++k) follows |= behind.count(layer->getInput(k)) != 0;
        if (!follows) continue;
        for (int32_t k = 0; k < layer->getNbOutputs(); ++k) behind.insert(layer->getOutput(k));
        bool const computes = layer->getNbOutputs() > 0 && layer->getOutput(0)->getType() == DataType::kFLOAT;
        if (computes && !layer->getOutput(0)->isShapeTensor()) head.push_back(layer);
    }
    return head;
}

#if AT_LEAST(10, 3)
class Monitor : public IProgressMonitor {
public:
    Monitor(ExconProgress progress, void* user) : mProgress(progress), mUser(user) {}
    void phaseStart(char const* phase, char const*, int32_t steps) noexcept override {
        try {
            mSteps.emplace_back(phase, steps);
        } catch (...) {
        }
    }
    bool stepComplete(char const* phase, int32_t step) noexcept override {
        int32_t steps = 0;
        for (auto const& open : mSteps) {
            if (open.first == phase) steps = open.second;
        }
        if (!mCancelled) mCancelled = mProgress(mUser, phase, step, steps) == 0;
        return !mCancelled;
    }
    void phaseFinish(char const* phase) noexcept override {
        for (auto open = mSteps.begin(); open != mSteps.end(); ++open) {
            if (open->first != phase) continue;
            mSteps.erase(open);
            return;
        }
    }
    bool cancelled() const { return mCancelled; }

private:
    ExconProgress mProgress;
    void* mUser;
    bool mCancelled{false};
    std::vector<std::pair<std::string, int32_t>> mSteps;
};
#endif

int64_t volume(Dims const& dims) {
    int64_t product = 1;
    for (int32_t i = 0; i < dims.nbDims; ++i) product *= dims.d[i];
    return product;
}

} // namespace

// Members are destroyed from the last to the first: each behind what it was made from.
struct ExconBuilder {
    Logger logger;
    int32_t device;
    std::unique_ptr<IBuilder> builder;
    std::unique_ptr<INetworkDefinition> network;
    std::unique_ptr<nvonnxparser::IParser> parser;
    ExconBuilder(int32_t device, ExconLog log, void* user) : logger(log, user), device(device) {}
};

struct ExconPlan {
    std::unique_ptr<IHostMemory> memory;
};

struct ExconRuntime {
    Logger logger;
    int32_t device;
    std::unique_ptr<IRuntime> runtime;
    ExconRuntime(int32_t device, ExconLog log, void* user) : logger(log, user), device(device) {}
};

struct ExconEngine {
    ExconRuntime* runtime;
    std::unique_ptr<ICudaEngine> engine;

    int32_t count() const {
#if AT_LEAST(8, 5)
        return engine->getNbIOTensors();
#else
        return engine->getNbBindings();
#endif
    }
    char const* name(int32_t i) const {
#if AT_LEAST(8, 5)
        return engine->getIOTensorName(i);
#else
        return engine->getBindingName(i);
#endif
    }
    bool input(int32_t i) const {
#if AT_LEAST(8, 5)
        return engine->getTensorIOMode(name(i)) == TensorIOMode::kINPUT;
#else
        return engine->bindingIsInput(i);
#endif
    }
    Dims shape(int32_t i) const {
#if AT_LEAST(8, 5)
        return engine->getTensorShape(name(i));
#else
        return engine->getBindingDimensions(i);
#endif
    }
    DataType type(int32_t i) const {
#if AT_LEAST(8, 5)
        return engine->getTensorDataType(name(i));
#else
        return engine->getBindingDataType(i);
#endif
    }
};

struct ExconContext {
    ExconEngine* engine;
    std::unique_ptr<IExecutionContext> context;
    cudaStream_t stream{};
    cudaGraphExec_t graph{};
    std::vector<void*> device;
    std::vector<void*> host;
    std::vector<size_t> bytes;
    bool lost{false};

    explicit ExconContext(ExconEngine* engine) : engine(engine) {}
    ~ExconContext() {
        if (graph != nullptr) cudaGraphExecDestroy(graph);
        context.reset();
        for (void* memory : device) cudaFree(memory);
        for (void* memory : host) cudaFreeHost(memory);
        if (stream != nullptr) cudaStreamDestroy(stream);
    }

    // Copies in, inference, copies out: what the graph is captured from.
    void issue() {
        int32_t const count = engine->count();
        for (int32_t i = 0; i < count; ++i) {
            if (engine->input(i)) copy(device[i], host[i], bytes[i], cudaMemcpyHostToDevice);
        }
        engine->runtime->logger.clear();
#if AT_LEAST(8, 5)
        bool const accepted = context->enqueueV3(stream);
#else
        bool const accepted = context->enqueueV2(device.data(), stream, nullptr);
#endif
        if (!accepted) throw Failure(EXCON_TRT_RUN, engine->runtime->logger.reason("the inference was not accepted"));
        for (int32_t i = 0; i < count; ++i) {
            if (!engine->input(i)) copy(host[i], device[i], bytes[i], cudaMemcpyDeviceToHost);
        }
    }

    void copy(void* to, void const* from, size_t size, cudaMemcpyKind kind) {
        check(cudaMemcpyAsync(to, from, size, kind, stream), "a copy was not accepted");
    }

    // Waits for the stream, but not for ever: spinning first, for a network takes well under a millisecond.
    void wait(uint32_t timeout_ms) {
        auto const begun = std::chrono::steady_clock::now();
        for (;;) {
            cudaError_t const status = cudaStreamQuery(stream);
            if (status == cudaSuccess) return;
            if (status != cudaErrorNotReady) check(status, "the inference failed");
            auto const waited = std::chrono::steady_clock::now() - begun;
            if (waited > std::chrono::milliseconds(timeout_ms)) {
                lost = true;
                throw Failure(EXCON_TRT_TIMEOUT, "the inference did not end in time; the device may hang");
            }
            if (waited > std::chrono::milliseconds(5)) {
                std::this_thread::sleep_for(std::chrono::microseconds(100));
            } else if (waited > std::chrono::microseconds(500)) {
                std::this_thread::yield();
            }
        }
    }

    // Replays cost one call instead of one a kernel. An engine that cannot be captured runs without.
    void capture() {
        cudaGraph_t captured{};
        if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
            cudaGetLastError();
            return;
        }
        bool whole = true;
        try {
            issue();
        } catch (Failure const&) {
            whole = false;
        }
        whole &= cudaStreamEndCapture(stream, &captured) == cudaSuccess && captured != nullptr;
#if CUDART_VERSION >= 12000
        if (whole && cudaGraphInstantiate(&graph, captured, 0) != cudaSuccess) graph = nullptr;
#else
        if (whole && cudaGraphInstantiate(&graph, captured, nullptr, nullptr, 0) != cudaSuccess) graph = nullptr;
#endif
        if (captured != nullptr) cudaGraphDestroy(captured);
        cudaGetLastError();
    }
};

extern "C" {

uint32_t excon_trt_abi(void) { return EXCON_TRT_ABI; }

void excon_trt_versions(int32_t built[3], int32_t loaded[3]) {
    built[0] = NV_TENSORRT_MAJOR;
    built[1] = NV_TENSORRT_MINOR;
    built[2] = NV_TENSORRT_PATCH;
    split(getInferLibVersion(), loaded);
}

int32_t excon_trt_device_count(int32_t* count, char* error, size_t room) {
    return guarded(error, room, [&] {
        *count = 0;
        check(cudaGetDeviceCount(count), "CUDA finds no device", EXCON_TRT_NO_DEVICE);
    });
}

int32_t excon_trt_device(int32_t index, ExconDevice* device, char* error, size_t room) {
    return guarded(error, room, [&] {
        select(index);
        cudaDeviceProp properties{};
        check(cudaGetDeviceProperties(&properties, index), "the device does not describe itself", EXCON_TRT_NO_DEVICE);
        copy_name(device->name, properties.name);
        device->capability[0] = properties.major;
        device->capability[1] = properties.minor;
        device->integrated = properties.integrated;
        device->memory = properties.totalGlobalMem;
        check(cudaDriverGetVersion(&device->driver), "the driver does not tell its version", EXCON_TRT_NO_DEVICE);
    });
}

int32_t excon_trt_builder_new(int32_t device, ExconLog log, void* user, ExconBuilder** builder, char* error, size_t room) {
    return guarded(error, room, [&] {
        select(device);
        auto made = std::make_unique<ExconBuilder>(device, log, user);
        made->builder.reset(createInferBuilder(made->logger));
        if (!made->builder) throw Failure(EXCON_TRT_BUILD, made->logger.reason("TensorRT makes no builder"));
#if NV_TENSORRT_MAJOR < 10
        uint32_t const flags = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#else
        uint32_t const flags = 0;
#endif
        made->network.reset(made->builder->createNetworkV2(flags));
        if (!made->network) throw Failure(EXCON_TRT_BUILD, made->logger.reason("TensorRT makes no network"));
        *builder = made.release();
    });
}

int32_t excon_trt_builder_parse(ExconBuilder* b, const void* onnx, size_t size, int32_t* node, char* error, size_t room) {
    *node = -1;
    return guarded(error, room, [&] {
        require(!b->parser, EXCON_TRT_ARGUMENT, "a builder takes one network");
        b->logger.clear();
        auto create = parser_library();
        b->parser.reset(static_cast<nvonnxparser::IParser*>(create(b->network.get(), &b->logger, NV_ONNX_PARSER_VERSION)));
        if (!b->parser) throw Failure(EXCON_TRT_PARSE, b->logger.reason("TensorRT makes no ONNX parser"));
        if (!b->parser->parse(onnx, size)) {
            if (b->parser->getNbErrors() == 0) throw Failure(EXCON_TRT_PARSE, b->logger.reason("the network is refused"));
            nvonnxparser::IParserError const* first = b->parser->getError(0);
            *node = first->node();
            throw Failure(EXCON_TRT_PARSE, first->desc());
        }
        for (int32_t i = 0; i < b->network->getNbInputs(); ++i) {
            require(volume(b->network->getInput(i)->getDimensions()) > 0, EXCON_TRT_PARSE, "an input's shape is not fixed");
        }
#if NV_TENSORRT_MAJOR < 11
        for (int32_t i = 0; i < b->network->getNbOutputs(); ++i) b->network->getOutput(i)->setType(DataType::kFLOAT);
#endif
    });
}

int32_t excon_trt_builder_build(ExconBuilder* b, const ExconOptions* options, ExconProgress progress, void* user,
                                ExconPlan** plan, ExconReport* report, char* error, size_t room) {
    return guarded(error, room, [&] {
        require(b->parser != nullptr, EXCON_TRT_ARGUMENT, "there is no network to build");
        select(b->device);
        b->logger.clear();
        std::unique_ptr<IBuilderConfig> config(b->builder->createBuilderConfig());
        require(config != nullptr, EXCON_TRT_BUILD, "TensorRT makes no configuration");
        // Short sums in ten bits of mantissa would not add up to the logit.
        config->clearFlag(BuilderFlag::kTF32);
        auto const head = head_of(*b->network);
        report->layers = b->network->getNbLayers();
        report->head_layers = static_cast<int32_t>(head.size());
        report->dla_layers = 0;
#if NV_TENSORRT_MAJOR < 11
        if (options->int8 != 0) config->setFlag(BuilderFlag::kINT8);
        if (options->half != 0) {
            config->setFlag(BuilderFlag::kFP16);
            config->setFlag(BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
            for (ILayer* layer : head) {
                layer->setPrecision(DataType::kFLOAT);
                layer->setOutputType(0, DataType::kFLOAT);
            }
        }
#endif
        if (options->workspace != 0) {
#if AT_LEAST(8, 4)
            config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, options->workspace);
#else
            config->setMaxWorkspaceSize(options->workspace);
#endif
        }
        if (options->dla_core >= 0) {
            require(options->dla_core < b->builder->getNbDLACores(), EXCON_TRT_BUILD,
                    "this device has no deep-learning accelerator of this number");
            config->setDefaultDeviceType(DeviceType::kDLA);
            config->setDLACore(options->dla_core);
            config->setFlag(BuilderFlag::kGPU_FALLBACK);
            for (ILayer* layer : head) config->setDeviceType(layer, DeviceType::kGPU);
            for (int32_t i = 0; i < report->layers; ++i) {
                ILayer const* layer = b->network->getLayer(i);
                report->dla_layers += config->getDeviceType(layer) == DeviceType::kDLA && config->canRunOnDLA(layer);
            }
        }
#if AT_LEAST(10, 3)
        Monitor monitor(progress, user);
        if (progress != nullptr) config->setProgressMonitor(&monitor);
#else
        (void) progress;
        (void) user;
#endif
        auto built = std::make_unique<ExconPlan>();
        built->memory.reset(b->builder->buildSerializedNetwork(*b->network, *config));
#if AT_LEAST(10, 3)
        require(!monitor.cancelled(), EXCON_TRT_CANCELLED, "the build was stopped");
#endif
        if (!built->memory) throw Failure(EXCON_TRT_BUILD, b->logger.reason("no engine came out, and no reason"));
        *plan = built.release();
    });
}

void excon_trt_builder_free(ExconBuilder* builder) { delete builder; }

const void* excon_trt_plan_data(const ExconPlan* plan) { return plan->memory->data(); }
size_t excon_trt_plan_size(const ExconPlan* plan) { return plan->memory->size(); }
void excon_trt_plan_free(ExconPlan* plan) { delete plan; }

int32_t excon_trt_runtime_new(int32_t device, ExconLog log, void* user, ExconRuntime** runtime, char* error, size_t room) {
    return guarded(error, room, [&] {
        select(device);
        auto made = std::make_unique<ExconRuntime>(device, log, user);
        made->runtime.reset(createInferRuntime(made->logger));
        if (!made->runtime) throw Failure(EXCON_TRT_NO_DEVICE, made->logger.reason("TensorRT makes no runtime"));
        *runtime = made.release();
    });
}

void excon_trt_runtime_free(ExconRuntime* runtime) { delete runtime; }

int32_t excon_trt_engine_new(ExconRuntime* r, const void* plan, size_t size, ExconEngine** engine, char* error, size_t room) {
    return guarded(error, room, [&] {
        select(r->device);
        r->logger.clear();
        auto made = std::make_unique<ExconEngine>();
        made->runtime = r;
        made->engine.reset(r->runtime->deserializeCudaEngine(plan, size));
        if (!made->engine) throw Failure(EXCON_TRT_MISMATCH, r->logger.reason("the plan is refused"));
        *engine = made.release();
    });
}

int32_t excon_trt_engine_tensors(const ExconEngine* engine) { return engine->count(); }

int32_t excon_trt_engine_tensor(const ExconEngine* e, int32_t index, ExconTensor* tensor, char* error, size_t room) {
    return guarded(error, room, [&] {
        require(index >= 0 && index < e->count(), EXCON_TRT_ARGUMENT, "there is no tensor of this number");
        Dims const dims = e->shape(index);
        require(dims.nbDims >= 0 && dims.nbDims <= 8, EXCON_TRT_MISMATCH, "a tensor has more than eight axes");
        copy_name(tensor->name, e->name(index));
        tensor->input = e->input(index);
        tensor->is_float = e->type(index) == DataType::kFLOAT;
        tensor->rank = dims.nbDims;
        for (int32_t i = 0; i < dims.nbDims; ++i) tensor->shape[i] = dims.d[i];
    });
}

void excon_trt_engine_free(ExconEngine* engine) { delete engine; }

int32_t excon_trt_context_new(ExconEngine* e, uint32_t timeout_ms, ExconContext** context, char* error, size_t room) {
    ExconContext* raw = nullptr;
    int32_t const code = guarded(error, room, [&] {
        select(e->runtime->device);
        e->runtime->logger.clear();
        raw = new ExconContext(e);
        raw->context.reset(e->engine->createExecutionContext());
        if (!raw->context) throw Failure(EXCON_TRT_MEMORY, e->runtime->logger.reason("TensorRT makes no context"));
        check(cudaStreamCreateWithFlags(&raw->stream, cudaStreamNonBlocking), "no CUDA stream");
        for (int32_t i = 0; i < e->count(); ++i) {
            require(e->type(i) == DataType::kFLOAT, EXCON_TRT_MISMATCH, "a tensor is not 32-bit float");
            int64_t const values = volume(e->shape(i));
            require(values > 0, EXCON_TRT_MISMATCH, "a tensor's shape is not fixed");
            raw->bytes.push_back(static_cast<size_t>(values) * sizeof(float));
            raw->host.push_back(nullptr);
            check(cudaHostAlloc(&raw->host.back(), raw->bytes.back(), cudaHostAllocDefault), "no pinned memory");
            std::memset(raw->host.back(), 0, raw->bytes.back());
            raw->device.push_back(nullptr);
            check(cudaMalloc(&raw->device.back(), raw->bytes.back()), "no device memory");
#if AT_LEAST(8, 5)
            require(raw->context->setTensorAddress(e->name(i), raw->device.back()), EXCON_TRT_RUN, "a tensor is not taken");
#endif
        }
        // The first inference sets up what a capture must not contain.
        raw->issue();
        raw->wait(timeout_ms);
        raw->capture();
        *context = raw;
    });
    if (code != EXCON_TRT_OK) excon_trt_context_free(raw);
    return code;
}

float* excon_trt_context_buffer(ExconContext* context, int32_t index) {
    bool const known = index >= 0 && static_cast<size_t>(index) < context->host.size();
    return known ? static_cast<float*>(context->host[index]) : nullptr;
}

int32_t excon_trt_context_run(ExconContext* c, uint32_t timeout_ms, char* error, size_t room) {
    return guarded(error, room, [&] {
        require(!c->lost, EXCON_TRT_TIMEOUT, "an earlier inference never ended; start the program again");
        // A thread that has not used CUDA yet would ask the first device.
        check(cudaSetDevice(c->engine->runtime->device), "the CUDA device cannot be used");
        if (c->graph != nullptr) {
            check(cudaGraphLaunch(c->graph, c->stream), "the inference was not accepted");
        } else {
            c->issue();
        }
        c->wait(timeout_ms);
    });
}

int32_t excon_trt_context_graph(const ExconContext* context) { return context->graph != nullptr; }

void excon_trt_context_free(ExconContext* context) {
    if (context != nullptr && !context->lost) delete context;
}

} // extern "C"
