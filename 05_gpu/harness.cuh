// harness.cuh: what every matmul rung shares: arguments, random inputs, check, timing, the printed line.
//
// Use:    a rung defines its kernel and a launch function, and its main() calls harness(argc, argv, name, launch).
//
// Letters: C = A * B, with A (M, K), B (K, N), C (M, N), fp32, row-major: element (i, j) of C is C[i * N + j].
//
// Check:  the output is filled with NaN, the kernel runs once, and every element is compared with a product summed in
//         double precision. Small products are summed on the CPU; larger ones by the plain GPU kernel below, which is
//         itself compared with the CPU on the small ones. The error is ||C - reference|| / ||reference||.
// Timing: CUDA events, after warm-up, one pair a launch. Before each launch a buffer larger than the L2 cache is
//         overwritten, so inputs come from device memory (a "cold" time). The median is reported, every repeat kept.
//
// What it leaves out: other data types, transposed inputs, C += A * B, batches.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

// Every CUDA call goes through this. A kernel built for another architecture does not run at all, and without the
// check its empty launch would look like a very fast one.
#define CHECK(call)                                                                                          \
    do {                                                                                                     \
        cudaError_t status_ = (call);                                                                        \
        if (status_ != cudaSuccess) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status_));      \
            exit(3);                                                                                         \
        }                                                                                                    \
    } while (0)

using Launch = void (*)(const float* A, const float* B, float* C, int M, int N, int K);

struct Size {
    int M, N, K;
};

struct Options {
    std::vector<Size> sizes;
    int repeats = 20;
    unsigned seed = 1;
    bool json = false;
};

inline int ceil_div(int a, int b) { return (a - 1) / b + 1; }     // for a >= 1; a + b - 1 could overflow

// Memory on the device, given back at the end of its scope.
template <typename T>
struct DeviceArray {
    T* data = nullptr;
    explicit DeviceArray(size_t count) { CHECK(cudaMalloc(&data, count * sizeof(T))); }
    ~DeviceArray() { cudaFree(data); }
    DeviceArray(const DeviceArray&) = delete;
    DeviceArray& operator=(const DeviceArray&) = delete;
};

inline std::vector<float> random_matrix(size_t count, std::mt19937& generator) {
    std::vector<float> values(count);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);   // never zeros: they hide wrong indexing
    for (float& value : values) value = uniform(generator);
    return values;
}

inline std::vector<double> reference_on_cpu(const std::vector<float>& A, const std::vector<float>& B, Size s) {
    std::vector<double> C((size_t)s.M * s.N, 0.0);
    for (int i = 0; i < s.M; i++)
        for (int k = 0; k < s.K; k++) {
            const double a = A[(size_t)i * s.K + k];
            for (int j = 0; j < s.N; j++) C[(size_t)i * s.N + j] += a * B[(size_t)k * s.N + j];
        }
    return C;
}

// One thread an element, summed in double. It walks the output as one long line, so it has no edges to get wrong.
__global__ void reference_kernel(const float* A, const float* B, double* C, int M, int N, int K) {
    const size_t element = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= (size_t)M * N) return;
    const size_t i = element / N, j = element % N;
    double sum = 0.0;
    for (int k = 0; k < K; k++) sum += (double)A[i * K + k] * (double)B[(size_t)k * N + j];
    C[element] = sum;
}

inline std::vector<double> reference_on_gpu(const float* A, const float* B, Size s) {
    const size_t count = (size_t)s.M * s.N;
    DeviceArray<double> C(count);
    reference_kernel<<<(unsigned)((count + 255) / 256), 256>>>(A, B, C.data, s.M, s.N, s.K);
    CHECK(cudaGetLastError());
    std::vector<double> host(count);
    CHECK(cudaMemcpy(host.data(), C.data, count * sizeof(double), cudaMemcpyDeviceToHost));
    return host;
}

// ||got - want|| / ||want||. A NaN anywhere makes the result NaN, and NaN is below no tolerance.
template <typename T>
double relative_error(const std::vector<T>& got, const std::vector<double>& want) {
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < want.size(); i++) {
        const double d = (double)got[i] - want[i];
        difference += d * d;
        norm += want[i] * want[i];
    }
    return std::sqrt(difference / norm);
}

// Rounding error of a sum of K random fp32 products grows with the square root of K, by less than one unit roundoff
// (2^-24) a step. One wrong element of C makes an error of about 1 / sqrt(M N), far above this; one missing term of one
// element about 1 / sqrt(M N K), above it up to some 2000 x 2000 x 2000. So check small sizes too, not only large ones.
inline double tolerance(int K) { return std::ldexp(1.0, -24) * (2.0 + std::sqrt((double)K)); }

inline std::vector<float> time_ms(Launch launch, const float* A, const float* B, float* C, Size s, int repeats) {
    int device = 0, l2_bytes = 0;
    CHECK(cudaGetDevice(&device));
    CHECK(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device));
    const size_t scratch_bytes = std::max<size_t>((size_t)512 << 20, 4 * (size_t)l2_bytes);
    DeviceArray<char> scratch(scratch_bytes);
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    std::vector<float> times;
    for (int i = -3; i < repeats; i++) {                          // the first three warm up
        CHECK(cudaMemsetAsync(scratch.data, 0, scratch_bytes));   // also keeps the GPU busy while the launch is queued
        CHECK(cudaEventRecord(start));
        launch(A, B, C, s.M, s.N, s.K);
        CHECK(cudaGetLastError());
        CHECK(cudaEventRecord(stop));
        CHECK(cudaEventSynchronize(stop));
        float ms = 0.0f;
        CHECK(cudaEventElapsedTime(&ms, start, stop));
        if (i >= 0) times.push_back(ms);
    }
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(stop));
    return times;
}

inline double median(std::vector<float> values) {
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : 0.5 * ((double)values[half - 1] + values[half]);
}

// Checks and times one size, prints one line. Returns whether the result was right.
inline bool run_size(const char* name, Launch launch, Size s, const Options& options) {
    std::mt19937 generator(options.seed);
    const std::vector<float> host_a = random_matrix((size_t)s.M * s.K, generator);
    const std::vector<float> host_b = random_matrix((size_t)s.K * s.N, generator);
    std::vector<float> host_c((size_t)s.M * s.N);
    DeviceArray<float> A(host_a.size()), B(host_b.size()), C(host_c.size());
    CHECK(cudaMemcpy(A.data, host_a.data(), host_a.size() * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(B.data, host_b.data(), host_b.size() * sizeof(float), cudaMemcpyHostToDevice));

    CHECK(cudaMemset(C.data, 0xFF, host_c.size() * sizeof(float)));   // all bits set is a NaN
    launch(A.data, B.data, C.data, s.M, s.N, s.K);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(host_c.data(), C.data, host_c.size() * sizeof(float), cudaMemcpyDeviceToHost));

    std::vector<double> want = reference_on_gpu(A.data, B.data, s);
    if ((double)s.M * s.N * s.K <= (double)(1 << 26)) {
        const std::vector<double> slow = reference_on_cpu(host_a, host_b, s);
        if (!(relative_error(want, slow) < 1e-12)) {
            fprintf(stderr, "the GPU's reference differs from the CPU's at %d x %d x %d\n", s.M, s.N, s.K);
            exit(3);
        }
        want = slow;
    }
    const double error = relative_error(host_c, want);
    const bool pass = error <= tolerance(s.K);

    const std::vector<float> times = time_ms(launch, A.data, B.data, C.data, s, options.repeats);
    const double ms = median(times), tflops = 2.0 * s.M * s.N * s.K / ms / 1e9;
    if (!options.json) {
        printf("%-16s %6d %6d %6d  %9.4f ms  %7.2f TFLOPS  error %.1e (at most %.1e)  %s\n", name, s.M, s.N, s.K,
               ms, tflops, error, tolerance(s.K), pass ? "PASS" : "FAIL");
    } else {
        // JSON has no NaN; a kernel that left one behind reports null and "pass": false.
        char error_text[32] = "null";
        if (std::isfinite(error)) snprintf(error_text, sizeof error_text, "%.3e", error);
        printf("{\"kernel\": \"%s\", \"M\": %d, \"N\": %d, \"K\": %d, \"median_ms\": %.6f, \"tflops\": %.4f, "
               "\"relative_error\": %s, \"tolerance\": %.3e, \"pass\": %s, \"ms\": [",
               name, s.M, s.N, s.K, ms, tflops, error_text, tolerance(s.K), pass ? "true" : "false");
        for (size_t i = 0; i < times.size(); i++) printf("%s%.6f", i ? ", " : "", times[i]);
        printf("]}\n");
    }
    fflush(stdout);
    return pass;
}

// "4096" is a square product, "100x200x300" is M x N x K.
inline bool parse_size(const char* text, Size& s) {
    int used = 0;
    const int length = (int)strlen(text);
    if (sscanf(text, "%dx%dx%d%n", &s.M, &s.N, &s.K, &used) == 3 && used == length)
        return s.M > 0 && s.N > 0 && s.K > 0;
    if (sscanf(text, "%d%n", &s.M, &used) != 1 || used != length) return false;
    s.N = s.K = s.M;
    return s.M > 0;
}

inline Options parse_options(int argc, char** argv, const char* name) {
    const char* help =
        "usage: %s [--size S]... [--repeats R] [--seed X] [--json]\n"
        "Checks an fp32 matrix product C = A * B against double precision, then times it.\n\n"
        "  --size S     4096 for a square product, 100x200x300 for M x N x K; may be given again\n"
        "               (default: three small ragged sizes, then 1024, 2048 and 4096)\n"
        "  --repeats R  timed launches a size, after 3 to warm up (default 20)\n"
        "  --seed X     of the random inputs (default 1)\n"
        "  --json       one JSON line a size, with every repeat in milliseconds\n\n"
        "Exit code: 0 all right, 1 a result was wrong, 2 bad arguments, 3 a CUDA call failed.\n";
    Options options;
    for (int i = 1; i < argc; i++) {
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        Size s{};
        int number = 0, used = 0;
        const bool whole = sscanf(value, "%d%n", &number, &used) == 1 && used == (int)strlen(value);
        if (!strcmp(argv[i], "--help")) {
            printf(help, name);
            exit(0);
        } else if (!strcmp(argv[i], "--json")) {
            options.json = true;
        } else if (!strcmp(argv[i], "--size") && parse_size(value, s)) {
            options.sizes.push_back(s), i++;
        } else if (!strcmp(argv[i], "--repeats") && whole && number > 0) {
            options.repeats = number, i++;
        } else if (!strcmp(argv[i], "--seed") && whole && number >= 0) {
            options.seed = (unsigned)number, i++;
        } else {
            fprintf(stderr, "%s: cannot use '%s %s'\n\n", name, argv[i], value);
            fprintf(stderr, help, name);
            exit(2);
        }
    }
    if (options.sizes.empty())
        options.sizes = {{1, 1, 1},          {33, 65, 129},      {1000, 1001, 1003},
                         {1024, 1024, 1024}, {2048, 2048, 2048}, {4096, 4096, 4096}};
    return options;
}

inline int harness(int argc, char** argv, const char* name, Launch launch) {
    const Options options = parse_options(argc, argv, name);
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0) {
        fprintf(stderr, "%s needs an NVIDIA GPU and found none (%s)\n", name, cudaGetErrorString(status));
        return 3;
    }
    bool all = true;
    for (const Size& s : options.sizes) all = run_size(name, launch, s, options) && all;
    return all ? 0 : 1;
}
