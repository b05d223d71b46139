// After the kernels and their table `kernels`: runs one by name. 1: there is none; 2: it takes other arguments.
extern "C" int emulate(const char* name, unsigned width, unsigned height, void** arguments, const char* kinds, int backwards) {
    for (const emulator::Entry& kernel : kernels) {
        if (strcmp(kernel.name, name) != 0) continue;
        if (!kernel.takes(kinds)) return 2;
        emulator::body = kernel.call;
        emulator::arguments = arguments;
        gridDim = {width, height};
        for (unsigned y = 0; y < height; ++y) {
            for (unsigned x = 0; x < width; ++x) {
                blockIdx = {x, y};
                emulator::block(backwards != 0);
            }
        }
        return 0;
    }
    return 1;
}
