// The parser's part of the mock's interface.
#pragma once

#include <NvInfer.h>

#define NV_ONNX_PARSER_VERSION 1

namespace nvonnxparser {

class IParserError {
public:
    virtual char const* desc() const = 0;
    virtual int node() const = 0;

protected:
    virtual ~IParserError() = default;
};

class IParser {
public:
    virtual bool parse(void const* model, size_t size, char const* path = nullptr) = 0;
    virtual int getNbErrors() const = 0;
    virtual IParserError const* getError(int i) const = 0;
    virtual ~IParser() = default;
};

} // namespace nvonnxparser

extern "C" void* createNvOnnxParser_INTERNAL(void* network, void* logger, int version);
