// An engine file opened for a device: what sessions share.
#pragma once

#include <memory>

#include "device/device.h"
#include "engine/engine_file.h"
#include "runtime/weights.h"

namespace millrace::runtime {

struct LoadedEngine {
  std::shared_ptr<const engine::EngineFile> file;
  std::shared_ptr<device::Device> device;
  std::shared_ptr<Weights> weights;  // loaded by the first session
  int decoder_start_token_id = -1;   // encoder-decoder models: the decoder's usual prompt

  const engine::Engine& engine() const { return file->engine(); }
};

}  // namespace millrace::runtime
