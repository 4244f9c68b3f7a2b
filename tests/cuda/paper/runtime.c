/* A CUDA runtime of paper: one A100 whose streams and events do nothing and whose memory does not exist.

   Preloaded, it lets torch's C++ code start CUDA where no driver is: autograd asks it for streams, FSDP for events.
   Tensors are fake (torch's FakeTensorMode), so no kernel is ever launched. tests/cuda/paper.py compiles it. */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#define GIB ((size_t)1 << 30)
#define NOTHING(name, ...) \
    cudaError_t name(__VA_ARGS__) { return cudaSuccess; }

static long handles = 1;
static int waits = 0;

/* How often the host has waited for the device. */
int paper_waits(void) { return waits; }

/* The device. */
cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = 40 * GIB; return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
    memset(of, 0, sizeof *of);
    strcpy(of->name, "NVIDIA A100-SXM4-40GB");
    of->major = 8;
    of->minor = 0;
    of->multiProcessorCount = 108;
    of->warpSize = 32;
    of->totalGlobalMem = 40 * GIB;
    return cudaSuccess;
}
NOTHING(cudaSetDevice, int device)
NOTHING(cudaGetLastError, void)
NOTHING(cudaPeekAtLastError, void)

/* Memory. Fake tensors have none; torch allocates one byte to see the device, from the host here. */
cudaError_t cudaMalloc(void **pointer, size_t size) {
    *pointer = malloc(size);
    return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void *pointer) { free(pointer); return cudaSuccess; }

/* Pinned memory, from which torch gives out parts. */
#define BLOCKS 256
static struct { char *begin; size_t size; } pinned[BLOCKS];
static int blocks = 0;
cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    if (blocks == BLOCKS || cudaMalloc(pointer, size) != cudaSuccess)
        return cudaErrorMemoryAllocation;
    pinned[blocks].begin = *pointer;
    pinned[blocks++].size = size;
    return cudaSuccess;
}
NOTHING(cudaFreeHost, void *pointer)
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *of, const void *pointer) {
    memset(of, 0, sizeof *of);
    of->type = cudaMemoryTypeUnregistered;
    for (int i = 0; i < blocks; i++)
        if ((const char *)pointer >= pinned[i].begin && (const char *)pointer < pinned[i].begin + pinned[i].size)
            of->type = cudaMemoryTypeHost;
    return cudaSuccess;
}

/* Streams and events. */
cudaError_t cudaDeviceGetStreamPriorityRange(int *low, int *high) { *low = 0; *high = -5; return cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    *stream = (cudaStream_t)(++handles);
    return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    *event = (cudaEvent_t)(++handles);
    return cudaSuccess;
}
NOTHING(cudaThreadExchangeStreamCaptureMode, enum cudaStreamCaptureMode *mode)
NOTHING(cudaStreamDestroy, cudaStream_t stream)
NOTHING(cudaStreamQuery, cudaStream_t stream)
NOTHING(cudaStreamWaitEvent, cudaStream_t stream, cudaEvent_t event, unsigned flags)
NOTHING(cudaEventDestroy, cudaEvent_t event)
NOTHING(cudaEventQuery, cudaEvent_t event)
NOTHING(cudaEventRecord, cudaEvent_t event, cudaStream_t stream)
NOTHING(cudaEventRecordWithFlags, cudaEvent_t event, cudaStream_t stream, unsigned flags)

/* The host waits. */
cudaError_t cudaDeviceSynchronize(void) { waits++; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { waits++; return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
    (void)begin;
    (void)end;
    *ms = 1;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { waits++; return cudaSuccess; }

/* The driver, which torch opens by the name libcuda.so.1: this library bears it. */
CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) { *text = "no error on paper"; return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return CUDA_SUCCESS;
}
