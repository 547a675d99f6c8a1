# cmake -P: writes OUT, the definitions of base/version.h.
execute_process(COMMAND git -C "${SOURCE_DIR}" describe --always --dirty --abbrev=10 --exclude "*"
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit "unknown")
endif()
file(CONFIGURE OUTPUT "${OUT}" @ONLY CONTENT [[
#include "base/version.h"

namespace millrace {

const char* version() { return "@VERSION@"; }
const char* commit() { return "@commit@"; }

}  // namespace millrace
]])
