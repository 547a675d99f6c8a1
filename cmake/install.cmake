# cmake --install: the program, the public headers, one library made of all folders, and what find_package(millrace)
# reads. src/text adds its Rust archive to the global property MILLRACE_ARCHIVES.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

function(add_install_rules)
  set(archives "")
  foreach(folder IN LISTS LAYERS ITEMS version)
    if(TARGET millrace_${folder} AND NOT folder STREQUAL "cli")
      list(APPEND archives "$<TARGET_FILE:millrace_${folder}>")
    endif()
  endforeach()
  get_property(more GLOBAL PROPERTY MILLRACE_ARCHIVES)
  list(APPEND archives ${more})

  # gcc-ar, where there is one: plain ar asks whatever plugin is installed to read the Rust objects' bitcode, and leaves
  # their symbols out of the index when it cannot.
  set(archiver "${CMAKE_AR}")
  if(CMAKE_CXX_COMPILER_AR)
    set(archiver "${CMAKE_CXX_COMPILER_AR}")
  endif()

  if(TARGET millrace)
    install(TARGETS millrace RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/millrace" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(
    CODE "
    set(AR \"${archiver}\")
    set(ARCHIVES \"${archives}\")
    set(OUT \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_LIBDIR}/libmillrace.a\")
    include(\"${PROJECT_SOURCE_DIR}/cmake/join_archives.cmake\")
    ")
  configure_package_config_file(
    "${PROJECT_SOURCE_DIR}/cmake/millraceConfig.cmake.in" "${PROJECT_BINARY_DIR}/millraceConfig.cmake"
    INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/millrace PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
  write_basic_package_version_file("${PROJECT_BINARY_DIR}/millraceConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
  install(FILES "${PROJECT_BINARY_DIR}/millraceConfig.cmake" "${PROJECT_BINARY_DIR}/millraceConfigVersion.cmake"
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/millrace)
endfunction()
