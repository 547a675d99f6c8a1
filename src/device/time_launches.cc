#include "device/time_launches.h"

#include <algorithm>

namespace millrace::device {

namespace {

void enqueue_all(int launches, FunctionRef<void(int)> work) {
  for (int i = 0; i < launches; ++i)
    work(i);
}

}  // namespace

std::vector<double> time_launches(Device& device, int launches, int replays,
                                  FunctionRef<void(int)> work) {
  enqueue_all(launches, work);  // loads the kernels
  return time_warm_launches(device, launches, [&](double) { return replays; }, work);
}

std::vector<double> time_warm_launches(Device& device, int launches,
                                       FunctionRef<int(double)> replays,
                                       FunctionRef<void(int)> work) {
  const auto all = [&] { enqueue_all(launches, work); };
  const std::unique_ptr<CapturedGraph> graph = device.capture(all);
  graph->replay();  // the first replay uploads the graph
  const auto begin = device.make_event(), end = device.make_event();
  std::vector<double> seconds;
  int wanted = 1;
  while (static_cast<int>(seconds.size()) < wanted) {
    begin->record();
    graph->replay();
    end->record();
    end->wait();
    seconds.push_back(end->seconds_since(*begin) / launches);
    if (seconds.size() == 1) wanted = replays(seconds[0]);
  }
  return seconds;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace millrace::device
