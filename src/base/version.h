// What this program is. The definitions are written by the build (cmake/write_version.cmake).
#pragma once

namespace millrace {

/// "0.1.0"
const char* version();
/// "7d29f21204", with "-dirty" for a changed working tree; "unknown" where there was no git.
const char* commit();

}  // namespace millrace
