# The CUDA back end: finds the toolkit, turns the language on, and gives CUDA code its flags.
#
# The toolkit is MILLRACE_CUDA_ROOT when that is set, else /usr/local/cuda, else the packages of `./dev setup --cuda`.
# cudart is linked statically; cuBLASLt and NCCL are opened at run time, so the program starts on machines without them.
set(MILLRACE_CUDA_ARCHITECTURES 90a CACHE STRING "GPU architectures to compile for: 90a, or all (preset cuda-release-all)")
set(MILLRACE_CUDA_ROOT "" CACHE PATH "CUDA toolkit; empty: looked for")

file(GLOB venv_toolkits "${PROJECT_SOURCE_DIR}/.venv-cuda/lib/python3*/site-packages/nvidia/cu13")
foreach(folder IN LISTS MILLRACE_CUDA_ROOT ITEMS /usr/local/cuda ${venv_toolkits})
  if(EXISTS "${folder}/bin/nvcc")
    set(cuda_root "${folder}")
    break()
  endif()
endforeach()
if(NOT cuda_root)
  message(FATAL_ERROR "MILLRACE_CUDA is on and there is no nvcc in /usr/local/cuda or .venv-cuda; run ./dev setup --cuda, "
                      "or set MILLRACE_CUDA_ROOT to a CUDA 13 toolkit")
endif()

# What the program can run on, for its messages: binary code by compute capability, and the PTX that drivers compile for newer
# GPUs. A file that uses Hopper's own instructions (ops/common/hopper.cuh) has code for Hopper only, and its tactics say so.
if(MILLRACE_CUDA_ARCHITECTURES STREQUAL "all")
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  set(MILLRACE_CUDA_CODE 80,89,90)
  set(MILLRACE_CUDA_PTX 90)
  set(hopper_code --generate-code=arch=compute_90a,code=sm_90a)
  set(MILLRACE_HOPPER_FLAGS ${hopper_code})
  set(MILLRACE_EVERY_GPU_FLAGS --generate-code=arch=compute_80,code=sm_80 --generate-code=arch=compute_89,code=sm_89
      ${hopper_code} --generate-code=arch=compute_90,code=compute_90)
elseif(MILLRACE_CUDA_ARCHITECTURES STREQUAL "90a")
  set(CMAKE_CUDA_ARCHITECTURES 90a-real)
  set(MILLRACE_CUDA_CODE 90)
  set(MILLRACE_CUDA_PTX 0)
else()
  message(FATAL_ERROR "MILLRACE_CUDA_ARCHITECTURES is ${MILLRACE_CUDA_ARCHITECTURES}; use 90a or all")
endif()
set(CMAKE_CUDA_COMPILER "${cuda_root}/bin/nvcc")
set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
# The packages keep their libraries in lib, where nvcc does not look by itself.
set(CMAKE_CUDA_FLAGS_INIT "-L${cuda_root}/lib -L${cuda_root}/lib64")
enable_language(CUDA)
# CMake 3.25 does not know that nvcc 13 speaks C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
set(CMAKE_CUDA_STANDARD_LATEST 20)
if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()
set(CMAKE_CUDA_FLAGS_RELEASE "-O3 -DNDEBUG")

# CUTLASS/CuTe headers, where they are installed (PyPI nvidia-cutlass keeps them beside the package).
file(GLOB cutlass_include "${PROJECT_SOURCE_DIR}/.venv-cuda/lib/python3*/site-packages/cutlass_library/source/include")
set(MILLRACE_CUTLASS_INCLUDE "${cutlass_include}" CACHE PATH "Folder that holds cute/ and cutlass/")

# nvcc writes members' pointer types with parentheses that the host compiler warns of: -Wno-parentheses.
add_library(millrace_cuda INTERFACE)
target_include_directories(millrace_cuda SYSTEM INTERFACE "${cuda_root}/include" ${MILLRACE_CUTLASS_INCLUDE})
target_compile_options(
  millrace_cuda
  INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo
            --expt-relaxed-constexpr
            --compress-mode=size
            -Werror=all-warnings
            -Xcompiler=-Wall,-Wextra,-Wno-restrict,-Wno-parentheses>)
find_library(cudart_static NAMES cudart_static PATHS "${cuda_root}/lib" "${cuda_root}/lib64" NO_DEFAULT_PATH REQUIRED)
target_link_libraries(millrace_cuda INTERFACE "${cudart_static}" ${CMAKE_DL_LIBS} rt)
target_link_libraries(millrace_flags INTERFACE millrace_cuda)
set_property(GLOBAL APPEND PROPERTY MILLRACE_ARCHIVES "${cudart_static}")

# Whether a CUDA file includes ops/common/hopper.cuh, itself or through headers of ops.
function(uses_hopper file out)
  file(STRINGS "${file}" includes REGEX "^#include \"ops/.*\\.cuh\"")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include \"(.*)\"$" "\\1" header "${include}")
    set(found ON)
    if(NOT header STREQUAL "ops/common/hopper.cuh")
      uses_hopper("${PROJECT_SOURCE_DIR}/src/${header}" found)
    endif()
    if(found)
      set(${out} ON PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(${out} OFF PARENT_SCOPE)
endfunction()

# Flags of the CUDA files among a folder's sources.
function(set_cuda_flags)
  foreach(file IN LISTS ARGN)
    if(file MATCHES "device/cuda/cuda_device\\.cc$")
      set_source_files_properties("${file}" PROPERTIES COMPILE_DEFINITIONS
                                  "MILLRACE_CUDA_CODE=${MILLRACE_CUDA_CODE};MILLRACE_CUDA_PTX=${MILLRACE_CUDA_PTX}")
    elseif(file MATCHES "\\.cu$" AND MILLRACE_EVERY_GPU_FLAGS)
      uses_hopper("${file}" hopper)
      if(hopper)
        set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS "${MILLRACE_HOPPER_FLAGS}")
      else()
        set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS "${MILLRACE_EVERY_GPU_FLAGS}")
      endif()
    endif()
  endforeach()
endfunction()
