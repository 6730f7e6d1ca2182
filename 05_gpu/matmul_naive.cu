// matmul_naive.cu: the matrix product as the definition says it, one GPU thread for each element of the result.
//
// Compile: nvcc -O3 -arch=sm_90 matmul_naive.cu -o matmul_naive        (sm_80 for an A100, sm_89 for an RTX 4090)
// Run:     ./matmul_naive            checks and times the default sizes; ./matmul_naive --help for the rest
//
// Letters: C = A * B, with A (M, K), B (K, N), C (M, N), fp32, row-major.
//
// Idea:    C[i][j] is the dot product of row i of A and column j of B. The M * N dot products do not depend on each
//          other, so each gets a thread of its own. The threads of a warp (32 that run in step) stand side by side in
//          one row of C: at every step of k they read the same element of A, which is one read for all, and 32
//          neighbours of one row of B, which is one 128-byte transaction. That is "coalesced". Were a warp to stand in
//          a column instead, it would read 32 rows of A and waste most of each transaction.
// Bytes:   each thread reads 2 K floats and writes one: 8 M N K + 4 M N bytes asked for, where the matrices hold only
//          4 (M K + K N + M N). Caches serve most of the difference, but every multiply-add still waits for two loads.
//
// What it leaves out: any reuse that the program itself controls (matmul_tiled.cu), tensor cores. M up to 2,097,120.
#include "harness.cuh"

constexpr int BLOCK = 32;                                          // threads of a block: 32 x 32, a square of C

__global__ void matmul_naive(const float* A, const float* B, float* C, int M, int N, int K) {
    const int i = blockIdx.y * BLOCK + threadIdx.y;                // row of C
    const int j = blockIdx.x * BLOCK + threadIdx.x;                // column: neighbouring threads, neighbouring columns
    if (i >= M || j >= N) return;                                  // the ragged edge: blocks cover more than C

    float sum = 0.0f;
    for (int k = 0; k < K; k++) sum += A[(size_t)i * K + k] * B[(size_t)k * N + j];
    C[(size_t)i * N + j] = sum;
}

void launch(const float* A, const float* B, float* C, int M, int N, int K) {
    matmul_naive<<<dim3(ceil_div(N, BLOCK), ceil_div(M, BLOCK)), dim3(BLOCK, BLOCK)>>>(A, B, C, M, N, K);
}

int main(int argc, char** argv) { return harness(argc, argv, "matmul_naive", launch); }
