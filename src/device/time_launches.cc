#include "device/time_launches.h"

#include <algorithm>

namespace millrace::device {

std::vector<double> time_launches(Device& device, int launches, int replays,
                                  FunctionRef<void(int)> work) {
  const auto all = [&] {
    for (int i = 0; i < launches; ++i)
      work(i);
  };
  all();  // loads the kernels
  const std::unique_ptr<CapturedGraph> graph = device.capture(all);
  graph->replay();  // the first replay uploads the graph
  const auto begin = device.make_event(), end = device.make_event();
  std::vector<double> seconds;
  for (int i = 0; i < replays; ++i) {
    begin->record();
    graph->replay();
    end->record();
    end->wait();
    seconds.push_back(end->seconds_since(*begin) / launches);
  }
  return seconds;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace millrace::device
