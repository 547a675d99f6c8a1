# millrace_version: the version and the commit, asked at every build and compiled anew only when they change.
set(VERSION_SOURCE "${PROJECT_BINARY_DIR}/gen/version.cc")
add_custom_target(
  millrace_version_source
  COMMAND ${CMAKE_COMMAND} -D SOURCE_DIR=${PROJECT_SOURCE_DIR} -D OUT=${VERSION_SOURCE} -D VERSION=${PROJECT_VERSION}
          -P ${PROJECT_SOURCE_DIR}/cmake/write_version.cmake
  BYPRODUCTS ${VERSION_SOURCE}
  COMMENT "")
add_library(millrace_version STATIC "${VERSION_SOURCE}")
add_dependencies(millrace_version millrace_version_source)
target_link_libraries(millrace_version PRIVATE millrace_flags)
