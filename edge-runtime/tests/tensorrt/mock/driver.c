/* The C ABI used from C, as the Rust side uses it: builds a network, runs one picture of the numbers 0, 1/97, 2/97, …
 * and prints what comes out. It shows that shim.h is C, and runs on machines for which no Rust toolchain is at hand. */
#include <stdio.h>
#include <stdlib.h>

#include "shim.h"

static char error[512];

static void check(int32_t code, const char* what) {
    if (code == EXCON_TRT_OK) return;
    fprintf(stderr, "%s: %d: %s\n", what, (int) code, error);
    exit(1);
}

int main(int count, char** arguments) {
    FILE* file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL) return 64;
    static char onnx[1 << 20];
    size_t const size = fread(onnx, 1, sizeof onnx, file);
    fclose(file);

    int32_t devices = 0, node = -1;
    check(excon_trt_device_count(&devices, error, sizeof error), "device");
    ExconBuilder* builder = NULL;
    check(excon_trt_builder_new(0, NULL, NULL, &builder, error, sizeof error), "builder");
    check(excon_trt_builder_parse(builder, onnx, size, &node, error, sizeof error), "parse");
    ExconOptions const options = {0, 1, -1, 0, 0};
    ExconPlan* plan = NULL;
    ExconReport report;
    check(excon_trt_builder_build(builder, &options, NULL, NULL, &plan, &report, error, sizeof error), "build");
    ExconRuntime* runtime = NULL;
    ExconEngine* engine = NULL;
    ExconContext* context = NULL;
    check(excon_trt_runtime_new(0, NULL, NULL, &runtime, error, sizeof error), "runtime");
    check(excon_trt_engine_new(runtime, excon_trt_plan_data(plan), excon_trt_plan_size(plan), &engine, error, sizeof error), "plan");
    check(excon_trt_context_new(engine, 1000, &context, error, sizeof error), "context");
    int32_t const tensors = excon_trt_engine_tensors(engine);
    for (int pass = 0; pass < 2; ++pass) {
        for (int32_t i = 0; i < tensors; ++i) {
            ExconTensor tensor;
            check(excon_trt_engine_tensor(engine, i, &tensor, error, sizeof error), "tensor");
            int64_t values = 1;
            for (int32_t k = 0; k < tensor.rank; ++k) values *= tensor.shape[k];
            float* buffer = excon_trt_context_buffer(context, i);
            if (pass == 0 && tensor.input) {
                for (int64_t k = 0; k < values; ++k) buffer[k] = (float) k / 97.0F - 1.0F;
            }
            if (pass == 1 && !tensor.input) {
                printf("%s", tensor.name);
                for (int64_t k = 0; k < values; ++k) printf(" %.5f", buffer[k]);
                printf("\n");
            }
        }
        if (pass == 0) check(excon_trt_context_run(context, 1000, error, sizeof error), "run");
    }
    printf("graph %d\n", (int) excon_trt_context_graph(context));
    excon_trt_context_free(context);
    excon_trt_engine_free(engine);
    excon_trt_runtime_free(runtime);
    excon_trt_plan_free(plan);
    excon_trt_builder_free(builder);
    return 0;
}
