// What both halves of the mock share: what it is told to do wrong, and the streams that work is put on.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>
#include <vector>

namespace mock {

// The value of a word in EXCON_MOCK, or `otherwise`.
std::string setting(char const* name, char const* otherwise = "");
int number(char const* name, int otherwise);
// Compute capability of the device.
void capability(int& major, int& minor);

// Work of a stream: done at once, or kept while it is captured.
struct Stream {
    bool capturing = false;
    std::vector<std::function<void()>> captured;
    void put(std::function<void()> work) {
        if (capturing) {
            captured.push_back(std::move(work));
        } else {
            work();
        }
    }
};

inline Stream* of(cudaStream_t stream) { return reinterpret_cast<Stream*>(stream); }

} // namespace mock
