// As much of TensorRT's interface as the shim uses, in the form of the version that NvInferVersion.h names: the real
// shim runs on it, and what a version lacks is missing here too.
#pragma once

#include <NvInferVersion.h>
#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#define NV_TENSORRT_VERSION \
    (NV_TENSORRT_MAJOR < 10 ? NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH \
                            : NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH)
#define MOCK_AT_LEAST(major, minor) \
    (NV_TENSORRT_MAJOR > (major) || (NV_TENSORRT_MAJOR == (major) && NV_TENSORRT_MINOR >= (minor)))

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3 };
enum class DeviceType : int32_t { kGPU = 0, kDLA = 1 };
enum class TensorIOMode : int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class MemoryPoolType : int32_t { kWORKSPACE = 0 };
enum class BuilderFlag : int32_t {
    kGPU_FALLBACK = 3,
    kTF32 = 7,
#if NV_TENSORRT_MAJOR < 11
    kFP16 = 0,
    kINT8 = 1,
    kOBEY_PRECISION_CONSTRAINTS = 10,
#endif
};
#if NV_TENSORRT_MAJOR < 10
enum class NetworkDefinitionCreationFlag : int32_t { kEXPLICIT_BATCH = 0 };
#endif

struct Dims {
    int32_t nbDims;
#if NV_TENSORRT_MAJOR < 10
    int32_t d[8];
#else
    int64_t d[8];
#endif
};

class ILogger {
public:
    enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, char const* text) noexcept = 0;
    virtual ~ILogger() = default;
};

class IHostMemory {
public:
    virtual ~IHostMemory() = default;
    virtual void* data() const = 0;
    virtual size_t size() const = 0;
};

class ITensor {
public:
    virtual ~ITensor() = default;
    virtual char const* getName() const = 0;
    virtual Dims getDimensions() const = 0;
    virtual DataType getType() const = 0;
    virtual bool isShapeTensor() const = 0;
#if NV_TENSORRT_MAJOR < 11
    virtual void setType(DataType type) = 0;
#endif
};

class ILayer {
public:
    virtual ~ILayer() = default;
    virtual int32_t getNbInputs() const = 0;
    virtual ITensor* getInput(int32_t i) const = 0;
    virtual int32_t getNbOutputs() const = 0;
    virtual ITensor* getOutput(int32_t i) const = 0;
#if NV_TENSORRT_MAJOR < 11
    virtual void setPrecision(DataType type) = 0;
    virtual void setOutputType(int32_t i, DataType type) = 0;
#endif
};

class INetworkDefinition {
public:
    virtual ~INetworkDefinition() = default;
    virtual int32_t getNbInputs() const = 0;
    virtual ITensor* getInput(int32_t i) const = 0;
    virtual int32_t getNbOutputs() const = 0;
    virtual ITensor* getOutput(int32_t i) const = 0;
    virtual int32_t getNbLayers() const = 0;
    virtual ILayer* getLayer(int32_t i) const = 0;
};

#if MOCK_AT_LEAST(10, 3)
class IProgressMonitor {
public:
    virtual ~IProgressMonitor() = default;
    virtual void phaseStart(char const* phase, char const* parent, int32_t steps) noexcept = 0;
    virtual bool stepComplete(char const* phase, int32_t step) noexcept = 0;
    virtual void phaseFinish(char const* phase) noexcept = 0;
};
#endif

class IBuilderConfig {
public:
    virtual ~IBuilderConfig() = default;
    virtual void setFlag(BuilderFlag flag) = 0;
    virtual void clearFlag(BuilderFlag flag) = 0;
    virtual void setDefaultDeviceType(DeviceType type) = 0;
    virtual void setDeviceType(ILayer const* layer, DeviceType type) = 0;
    virtual DeviceType getDeviceType(ILayer const* layer) const = 0;
    virtual bool canRunOnDLA(ILayer const* layer) const = 0;
    virtual void setDLACore(int32_t core) = 0;
#if MOCK_AT_LEAST(8, 4)
    virtual void setMemoryPoolLimit(MemoryPoolType pool, size_t size) = 0;
#else
    virtual void setMaxWorkspaceSize(size_t size) = 0;
#endif
#if MOCK_AT_LEAST(10, 3)
    virtual void setProgressMonitor(IProgressMonitor* monitor) = 0;
#endif
};

class IBuilder {
public:
    virtual ~IBuilder() = default;
    virtual INetworkDefinition* createNetworkV2(uint32_t flags) = 0;
    virtual IBuilderConfig* createBuilderConfig() = 0;
    virtual int32_t getNbDLACores() const = 0;
    virtual IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& config) = 0;
};

class IExecutionContext {
public:
    virtual ~IExecutionContext() = default;
#if MOCK_AT_LEAST(8, 5)
    virtual bool setTensorAddress(char const* name, void* address) = 0;
    virtual bool enqueueV3(cudaStream_t stream) = 0;
#endif
#if NV_TENSORRT_MAJOR < 10
    virtual bool enqueueV2(void* const* bindings, cudaStream_t stream, cudaEvent_t* consumed) = 0;
#endif
};

class ICudaEngine {
public:
    virtual ~ICudaEngine() = default;
    virtual IExecutionContext* createExecutionContext() = 0;
#if MOCK_AT_LEAST(8, 5)
    virtual int32_t getNbIOTensors() const = 0;
    virtual char const* getIOTensorName(int32_t i) const = 0;
    virtual TensorIOMode getTensorIOMode(char const* name) const = 0;
    virtual Dims getTensorShape(char const* name) const = 0;
    virtual DataType getTensorDataType(char const* name) const = 0;
#endif
#if NV_TENSORRT_MAJOR < 10
    virtual int32_t getNbBindings() const = 0;
    virtual char const* getBindingName(int32_t i) const = 0;
    virtual bool bindingIsInput(int32_t i) const = 0;
    virtual Dims getBindingDimensions(int32_t i) const = 0;
    virtual DataType getBindingDataType(int32_t i) const = 0;
#endif
};

class IRuntime {
public:
    virtual ~IRuntime() = default;
    virtual ICudaEngine* deserializeCudaEngine(void const* plan, size_t size) = 0;
};

extern "C" void* createInferBuilder_INTERNAL(void* logger, int32_t version) noexcept;
extern "C" void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept;

inline IBuilder* createInferBuilder(ILogger& logger) {
    return static_cast<IBuilder*>(createInferBuilder_INTERNAL(&logger, NV_TENSORRT_VERSION));
}
inline IRuntime* createInferRuntime(ILogger& logger) {
    return static_cast<IRuntime*>(createInferRuntime_INTERNAL(&logger, NV_TENSORRT_VERSION));
}

} // namespace nvinfer1

extern "C" int32_t getInferLibVersion() noexcept;
