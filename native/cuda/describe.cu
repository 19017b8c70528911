/* The card by its maker's figures. A peak is multiprocessors x clock x what one
 * of them does in a cycle; memory gives two words a clock on each line of its
 * bus. */
#include "backend.cuh"

#include <stdio.h>

/* Floating-point operations of a multiprocessor in a cycle, a multiply-add
 * counted as two: CUDA programming guide, arithmetic throughput of fp32; for
 * bf16 on tensor cores with fp32 sums, without sparsity, the dense peak of the
 * architecture's white paper over multiprocessors and boost clock (A100 312,
 * H100 SXM 989, B200 2250, RTX 3090 71, 4090 165, 5090 210 TFLOP/s). Architectures
 * 86, 89 and 120 are GeForce's: their cards for work stations and servers do
 * twice that; where a data sheet is known (trainer/plan/cards.go), it counts. */
static const struct {
    int architecture, fp32, bf16;
} per_cycle[] = {{80, 128, 2048}, {86, 256, 512}, {89, 256, 512}, {90, 256, 4096}, {100, 256, 8192}, {120, 256, 512}};

static double attribute(cudaDeviceAttr which, int device)
{
    int value = 0;
    if (cudaDeviceGetAttribute(&value, which, device) != cudaSuccess)
        cudaGetLastError();
    return value;
}

int cuda_describe(student_device *device, char *message, size_t capacity)
{
    cuda_state s = {};
    int status = cuda_choose_device(&s, message, capacity), driver = 0;
    if (status)
        return status;
    size_t free_bytes = 0, total = 0;
    cudaError_t error = cudaMemGetInfo(&free_bytes, &total);
    if (error != cudaSuccess) {
        cudaGetLastError();
        snprintf(message, capacity, "cuda: %s does not answer: %s", s.device_name, cudaGetErrorString(error));
        return STUDENT_E_CAPABILITY;
    }
    cudaDriverGetVersion(&driver);
    double cycles = 1e3 * attribute(cudaDevAttrClockRate, s.device) * s.multiprocessors;
    *device = {};
    device->size = sizeof *device;
    snprintf(device->name, sizeof device->name, "%s", s.device_name);
    device->memory = total;
    device->free = free_bytes;
    device->architecture = s.architecture;
    device->multiprocessors = s.multiprocessors;
    device->driver = driver;
    for (const auto &p : per_cycle)
        if (p.architecture == s.architecture) {
            device->fp32_flops = cycles * p.fp32;
            device->bf16_flops = cycles * p.bf16;
        }
    device->bandwidth = 2e3 * attribute(cudaDevAttrMemoryClockRate, s.device) *
                        attribute(cudaDevAttrGlobalMemoryBusWidth, s.device) / 8;
    return STUDENT_OK;
}
