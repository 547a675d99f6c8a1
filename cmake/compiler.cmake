# Flags of our own code, as the interface target millrace_flags. No global flags but the build type's.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# A static library is made without waiting for those that its users will have to link too.
set(CMAKE_OPTIMIZE_DEPENDENCIES ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# -g1: line tables for profilers and stack traces at a tenth of the size of full debug information.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g")
if(MILLRACE_SANITIZE)
  # -Og compiles instrumented code faster than -O1, and runs it slower (docs/decisions/0011_ci_time.md).
  set(CMAKE_CXX_FLAGS_DEBUG "-Og -g1")
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

find_package(Threads REQUIRED)
add_library(millrace_flags INTERFACE)
target_compile_options(
  millrace_flags
  INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall
            -Wextra
            -Wpedantic
            -Wshadow
            -Wnon-virtual-dtor
            -Woverloaded-virtual
            -Wextra-semi
            # One result on every machine: products and sums are fused only where the code says so.
            -ffp-contract=off
            -ffunction-sections
            -fdata-sections>)
target_include_directories(millrace_flags INTERFACE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/include"
                                                    "${PROJECT_BINARY_DIR}")
target_link_options(millrace_flags INTERFACE -Wl,--gc-sections)
target_link_libraries(millrace_flags INTERFACE Threads::Threads)
target_compile_definitions(
  millrace_flags INTERFACE $<$<BOOL:${MILLRACE_DCHECK}>:MILLRACE_DCHECK> $<$<BOOL:${MILLRACE_CUDA}>:MILLRACE_CUDA>
                           $<$<BOOL:${MILLRACE_TEXT}>:MILLRACE_TEXT>)

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Warnings are errors with the compiler that CI has; another one's new warnings do not stop a user's build.
  target_compile_options(millrace_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
  # GCC 12 sees overlapping copies in std::string's operator+ that are not there (GCC bug 105651).
  target_compile_options(millrace_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
  if(MILLRACE_SANITIZE)
    # Instrumented code confuses the flow analysis behind these; the release build has them on.
    target_compile_options(millrace_flags INTERFACE -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds
                                                    -Wno-null-dereference)
  endif()
endif()

if(MILLRACE_SANITIZE)
  target_compile_options(millrace_flags INTERFACE -fsanitize=${MILLRACE_SANITIZE} -fno-sanitize-recover=all
                                                  -fno-omit-frame-pointer)
  target_link_options(millrace_flags INTERFACE -fsanitize=${MILLRACE_SANITIZE})
  # xxHash demands inlining of calls through function pointers, which -Og does not see through.
  target_compile_definitions(millrace_flags INTERFACE XXH_NO_INLINE_HINTS=1)
endif()
if(MILLRACE_FUZZ)
  target_compile_options(millrace_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Loops over numbers are worth -O3, and unusable at -O0.
set(MILLRACE_KERNEL_FLAGS -O3)
if(MILLRACE_SANITIZE)
  set(MILLRACE_KERNEL_FLAGS -O2)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  set(MILLRACE_X86 ON)
else()
  set(MILLRACE_X86 OFF)
endif()
set(MILLRACE_ISA_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(MILLRACE_ISA_avx512 ${MILLRACE_ISA_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12's own header reads a variable that is not set, on purpose (GCC bug 105593).
  list(APPEND MILLRACE_ISA_avx512 -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
set(MILLRACE_ISA_avx512bf16 ${MILLRACE_ISA_avx512} -mavx512bf16)

# Sets the options of kernel files in the caller's folder by their names; *_avx2.cc, *_avx512.cc and *_avx512bf16.cc
# leave `sources_variable` where the processor is another (the registrations are guarded by __x86_64__).
function(set_kernel_flags sources_variable)
  set(kept "")
  foreach(file IN LISTS ${sources_variable})
    if(file MATCHES "_(avx2|avx512|avx512bf16)\\.cc$")
      set(isa ${CMAKE_MATCH_1})
      if(NOT MILLRACE_X86)
        continue()
      endif()
      set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS "${MILLRACE_KERNEL_FLAGS};${MILLRACE_ISA_${isa}}")
    elseif(file MATCHES "_(cpu|ref)\\.cc$")
      set_source_files_properties("${file}" PROPERTIES COMPILE_OPTIONS "${MILLRACE_KERNEL_FLAGS}")
    endif()
    list(APPEND kept "${file}")
  endforeach()
  set(${sources_variable} "${kept}" PARENT_SCOPE)
endfunction()
