// matmul_tiled.cu: the matrix product through shared memory, so that each number fetched is used 32 times.
//
// Compile: nvcc -O3 -arch=sm_90 matmul_tiled.cu -o matmul_tiled        (sm_80 for an A100, sm_89 for an RTX 4090)
// Run:     ./matmul_tiled            checks and times the default sizes; ./matmul_tiled --help for the rest
//
// Letters: C = A * B, with A (M, K), B (K, N), C (M, N), fp32, row-major.
//
// Idea:    a block computes a 32 x 32 tile of C. It walks along K in steps of 32: its 1024 threads fetch one 32 x 32
//          tile of A and one of B into shared memory (each thread one element of each), wait for each other, and then
//          each takes its 32 multiply-adds from there. Every element fetched serves a whole row or column of the tile.
//
//              B: the tile walks down            a step of k0:  tile of A x tile of B, added to the tile of C
//          A: the tile walks right    C: the tile stays
//
// Bytes:   from device memory and L2, M N K * 8 / 32 + 4 M N: a 32nd of the naive kernel's. What is left is the reading
//          of shared memory: still two operands for each multiply-add, and that is the limit now.
//
// What it leaves out: register tiles (each thread an 8 x 8 patch, so that an operand read serves 8 multiply-adds), wide
//          loads, fetching the next tile while this one is used, tensor cores. M up to 2,097,120.
#include "harness.cuh"

constexpr int TILE = 32;

__global__ void matmul_tiled(const float* A, const float* B, float* C, int M, int N, int K) {
    __shared__ float a_tile[TILE][TILE], b_tile[TILE][TILE];
    const int ti = threadIdx.y, tj = threadIdx.x;
    const int i = blockIdx.y * TILE + ti;                          // row of C
    const int j = blockIdx.x * TILE + tj;                          // column of C

    float sum = 0.0f;
    for (int k0 = 0; k0 < K; k0 += TILE) {
        // Beyond an edge a zero is stored: it adds nothing, and no thread may leave before the barriers below.
        a_tile[ti][tj] = i < M && tj < K - k0 ? A[(size_t)i * K + k0 + tj] : 0.0f;
        b_tile[ti][tj] = ti < K - k0 && j < N ? B[(size_t)(k0 + ti) * N + j] : 0.0f;
        __syncthreads();                                           // both tiles are whole before anyone reads them

        // A warp reads one a_tile element (sent to all 32 threads at once) and one row of b_tile (32 different banks).
        for (int k = 0; k < TILE; k++) sum += a_tile[ti][k] * b_tile[k][tj];
        __syncthreads();                                           // everyone has read them before they are overwritten
    }
    if (i < M && j < N) C[(size_t)i * N + j] = sum;
}

void launch(const float* A, const float* B, float* C, int M, int N, int K) {
    matmul_tiled<<<dim3(ceil_div(N, TILE), ceil_div(M, TILE)), dim3(TILE, TILE)>>>(A, B, C, M, N, K);
}

int main(int argc, char** argv) { return harness(argc, argv, "matmul_tiled", launch); }
