// CUDA's runtime on a processor: memory is memory, and a stream does its work at once unless it is captured.
#include "mock.h"

#include <cstdlib>
#include <cstring>

namespace mock {

std::string setting(char const* name, char const* otherwise) {
    char const* environment = std::getenv("EXCON_MOCK");
    std::string const all = "," + std::string(environment == nullptr ? "" : environment) + ",";
    std::string const key = std::string(",") + name + "=";
    size_t const at = all.find(key);
    if (at == std::string::npos) return otherwise;
    size_t const from = at + key.size();
    return all.substr(from, all.find(',', from) - from);
}

int number(char const* name, int otherwise) {
    std::string const text = setting(name);
    return text.empty() ? otherwise : std::atoi(text.c_str());
}

void capability(int& major, int& minor) {
    std::string const text = setting("capability", "8.7");
    major = std::atoi(text.c_str());
    minor = std::atoi(text.c_str() + text.find('.') + 1);
}

} // namespace mock

using namespace mock;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 0;
    int const code = number("cuda", 0);
    if (code != 0) return static_cast<cudaError_t>(code);
    *count = number("devices", 1);
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError(void) { return cudaSuccess; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    std::strcpy(properties->name, "Mock Orin");
    capability(properties->major, properties->minor);
    properties->integrated = 1;
    properties->totalGlobalMem = size_t{8} << 30;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = number("driver", 12020);
    return cudaSuccess;
}

char const* cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    default: return "another error";
    }
}

cudaError_t cudaHostAlloc(void** memory, size_t size, unsigned int) {
    *memory = std::malloc(size);
    return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t size) { return cudaHostAlloc(memory, size, 0); }
cudaError_t cudaFree(void* memory) { return cudaFreeHost(memory); }

cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
    of(stream)->put([=] { std::memcpy(to, from, size); });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int) {
    *stream = reinterpret_cast<cudaStream_t>(new Stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete of(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t) {
    std::string const wrong = setting("stream");
    return wrong == "hang" ? cudaErrorNotReady : wrong == "error" ? cudaErrorIllegalAddress : cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (setting("capture") == "refuse") return cudaErrorStreamCaptureUnsupported;
    of(stream)->capturing = true;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    of(stream)->capturing = false;
    *graph = reinterpret_cast<cudaGraph_t>(new std::vector<std::function<void()>>(std::move(of(stream)->captured)));
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    auto const* work = reinterpret_cast<std::vector<std::function<void()>>*>(graph);
    *executable = reinterpret_cast<cudaGraphExec_t>(new std::vector<std::function<void()>>(*work));
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
    for (auto const& work : *reinterpret_cast<std::vector<std::function<void()>>*>(executable)) work();
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete reinterpret_cast<std::vector<std::function<void()>>*>(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete reinterpret_cast<std::vector<std::function<void()>>*>(executable);
    return cudaSuccess;
}

} // extern "C"
