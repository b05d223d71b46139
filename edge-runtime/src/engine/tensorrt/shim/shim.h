/* The C ABI between excon-edge and TensorRT: opaque handles, plain numbers, no C++ type and no exception across.
 *
 * Every function that can fail returns 0 or one of the codes below and writes a sentence of at most `room` bytes, NUL
 * included, into `error`. A handle belongs to one thread at a time; each is freed once, before the one it was made
 * from. EXCON_TRT_ABI grows with every change of this file: a program refuses a library of another number. */
#ifndef EXCON_TENSORRT_SHIM_H
#define EXCON_TENSORRT_SHIM_H

#include <stddef.h>
#include <stdint.h>

#define EXCON_TRT_ABI 1

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EXCON_TRT_OK = 0,
    EXCON_TRT_NO_DEVICE = 1,   /* no CUDA device, or its driver does not answer */
    EXCON_TRT_PARSE = 2,       /* the parser refuses the network */
    EXCON_TRT_BUILD = 3,       /* no engine came out of the builder */
    EXCON_TRT_MISMATCH = 4,    /* a plan of another version or device, or damaged */
    EXCON_TRT_RUN = 5,         /* an inference failed */
    EXCON_TRT_TIMEOUT = 6,     /* an inference did not end in time: the context is lost */
    EXCON_TRT_ARGUMENT = 7,    /* called with what it cannot take */
    EXCON_TRT_MEMORY = 8,      /* host or device memory ran out */
    EXCON_TRT_CANCELLED = 9    /* the progress function said stop */
};

typedef struct ExconBuilder ExconBuilder;
typedef struct ExconPlan ExconPlan;
typedef struct ExconRuntime ExconRuntime;
typedef struct ExconEngine ExconEngine;
typedef struct ExconContext ExconContext;

/* severity: 0 internal error, 1 error, 2 warning, 3 information, 4 everything. */
typedef void (*ExconLog)(void* user, int32_t severity, const char* text);
/* Returns 0 to stop the build. `steps` is how many the phase has. */
typedef int32_t (*ExconProgress)(void* user, const char* phase, int32_t step, int32_t steps);

typedef struct ExconDevice {
    char name[128];
    int32_t capability[2];
    int32_t driver;          /* as CUDA numbers it: 12020 is 12.2 */
    int32_t integrated;      /* shares the processor's memory, as on a Jetson */
    uint64_t memory;         /* bytes */
} ExconDevice;

typedef struct ExconOptions {
    int32_t half;            /* layers before the head may compute in 16-bit float */
    int32_t int8;            /* the network holds quantize-dequantize pairs */
    int32_t dla_core;        /* deep-learning accelerator, or -1; what it cannot run falls back to the GPU */
    int32_t reserved;
    uint64_t workspace;      /* bytes the builder may try tactics with; 0 leaves it to TensorRT */
} ExconOptions;

typedef struct ExconReport {
    int32_t layers;          /* of the network as parsed */
    int32_t dla_layers;      /* of these, those that the accelerator can run */
    int32_t head_layers;     /* behind `features`, held in 32-bit float */
} ExconReport;

typedef struct ExconTensor {
    char name[128];
    int32_t input;           /* 1 for an input, 0 for an output */
    int32_t is_float;        /* 32-bit float */
    int32_t rank;
    int64_t shape[8];
} ExconTensor;

uint32_t excon_trt_abi(void);
/* Major, minor, patch: of the headers this was compiled with, and of the library that is loaded. Needs no device. */
void excon_trt_versions(int32_t built[3], int32_t loaded[3]);

/* Ask this first: without a device some versions crash in what follows. */
int32_t excon_trt_device_count(int32_t* count, char* error, size_t room);
int32_t excon_trt_device(int32_t index, ExconDevice* device, char* error, size_t room);

int32_t excon_trt_builder_new(int32_t device, ExconLog log, void* user, ExconBuilder** builder, char* error, size_t room);
/* `node` is the position of the node that is refused, or -1. */
int32_t excon_trt_builder_parse(ExconBuilder* builder, const void* onnx, size_t size, int32_t* node, char* error, size_t room);
int32_t excon_trt_builder_build(ExconBuilder* builder, const ExconOptions* options, ExconProgress progress, void* user,
                                ExconPlan** plan, ExconReport* report, char* error, size_t room);
void excon_trt_builder_free(ExconBuilder* builder);

const void* excon_trt_plan_data(const ExconPlan* plan);
size_t excon_trt_plan_size(const ExconPlan* plan);
void excon_trt_plan_free(ExconPlan* plan);

int32_t excon_trt_runtime_new(int32_t device, ExconLog log, void* user, ExconRuntime** runtime, char* error, size_t room);
void excon_trt_runtime_free(ExconRuntime* runtime);

int32_t excon_trt_engine_new(ExconRuntime* runtime, const void* plan, size_t size, ExconEngine** engine, char* error, size_t room);
int32_t excon_trt_engine_tensors(const ExconEngine* engine);
int32_t excon_trt_engine_tensor(const ExconEngine* engine, int32_t index, ExconTensor* tensor, char* error, size_t room);
void excon_trt_engine_free(ExconEngine* engine);

/* Has run once, and holds a CUDA graph where the engine lets itself be captured. */
int32_t excon_trt_context_new(ExconEngine* engine, uint32_t timeout_ms, ExconContext** context, char* error, size_t room);
/* Pinned memory of a tensor: written before a run where it is an input, read after where it is an output. */
float* excon_trt_context_buffer(ExconContext* context, int32_t index);
int32_t excon_trt_context_run(ExconContext* context, uint32_t timeout_ms, char* error, size_t room);
int32_t excon_trt_context_graph(const ExconContext* context);
/* Leaves a context alone whose inference never ended: waiting for it would hang too. */
void excon_trt_context_free(ExconContext* context);

#ifdef __cplusplus
}
#endif
#endif
