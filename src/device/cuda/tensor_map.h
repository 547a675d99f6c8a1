// Tensor maps: how the copy engine (TMA, cp.async.bulk.tensor) finds boxes of a tensor in memory.
//
// A kernel takes one as `const __grid_constant__ CUtensorMap map`. The map holds the tensor's
// address, so that it is made for every launch, on the host (well below a microsecond).
#pragma once

#include <cstdint>
#include <initializer_list>

#include <cuda.h>

namespace millrace::device {

/// How the rows of a box lie in shared memory: 16-byte pieces change places within groups of this
/// many bytes, so that a column of pieces is spread over all banks. Piece p of row r goes to place
/// p XOR (r mod 8) with 128 bytes, p XOR (r / 2 mod 4) with 64. The box then begins at a multiple
/// of 1024 or 512 bytes of shared memory (128 without), and its rows are at most that wide.
enum class Swizzle : uint8_t { kNone, k64Bytes, k128Bytes };

/// Two to five dimensions of 16-bit elements (bf16 or f16), innermost first: {K, rows},
/// {head_dim, heads, rows}, {head_dim, heads, rows, pages}.
///
/// A box is [box[n-1], ..., box[0]] elements, dense in shared memory, box[0] innermost. Elements
/// outside of `dims` arrive as zeros, and count among the bytes that a barrier expects.
///
/// `data` and all strides are multiples of 16 bytes; box[0] is a multiple of 8; each box dimension
/// is at most 256; dims are at least 1. Throws Error where the driver refuses.
CUtensorMap make_tensor_map(const void* data, std::initializer_list<int64_t> dims,
                            std::initializer_list<int64_t> strides,  // elements; of dims 1, 2, ...
                            std::initializer_list<int64_t> box, Swizzle swizzle);

/// A dense row-major matrix [rows, cols] in boxes of box_rows x box_cols.
inline CUtensorMap make_matrix_map(const void* data, int64_t rows, int64_t cols, int64_t box_rows,
                                   int64_t box_cols, Swizzle swizzle) {
  return make_tensor_map(data, {cols, rows}, {cols}, {box_cols, box_rows}, swizzle);
}

}  // namespace millrace::device
