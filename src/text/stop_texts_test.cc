#include "text/stop_texts.h"

#include <algorithm>
#include <random>
#include <string_view>

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(StopTexts, ShowsEverythingWithoutStopTexts) {
  StopTexts stops({});
  EXPECT_EQ(stops.push("abc"), "abc");
  EXPECT_EQ(stops.flush(), "");
  EXPECT_FALSE(stops.found().has_value());
}

TEST(StopTexts, HoldsBackWhatMayBecomeAStopText) {
  StopTexts stops({"END"});
  EXPECT_EQ(stops.push("the E"), "the ");
  EXPECT_EQ(stops.push("N"), "");
  EXPECT_EQ(stops.push("TER E"), "ENTER ");
  EXPECT_EQ(stops.push("ND and more"), "");
  EXPECT_EQ(stops.found(), "END");
  EXPECT_EQ(stops.push("after"), "");
  EXPECT_EQ(stops.flush(), "");
}

TEST(StopTexts, FlushGivesWhatWasHeld) {
  StopTexts stops({"END"});
  EXPECT_EQ(stops.push("xEN"), "x");
  EXPECT_EQ(stops.flush(), "EN");
  EXPECT_FALSE(stops.found().has_value());
}

TEST(StopTexts, RepeatedBeginnings) {
  StopTexts stops({"aab"});
  EXPECT_EQ(stops.push("aaa"), "a");
  EXPECT_EQ(stops.push("a"), "a");
  EXPECT_EQ(stops.push("b"), "");
  EXPECT_EQ(stops.found(), "aab");
}

TEST(StopTexts, TheOneThatIsCompleteFirstEndsTheText) {
  StopTexts shorter({"stop it", "stop"});
  EXPECT_EQ(shorter.push("do stop it"), "do ");
  EXPECT_EQ(shorter.found(), "stop");
  StopTexts inner({"ab", "xabc"});
  EXPECT_EQ(inner.push("xabc"), "x");
  EXPECT_EQ(inner.found(), "ab");
}

TEST(StopTexts, OfTwoThatAreCompleteTogetherTheLonger) {
  StopTexts stops({"late", "a late"});
  EXPECT_EQ(stops.push("it is a late hour"), "it is ");
  EXPECT_EQ(stops.found(), "a late");
}

std::string random_text(std::mt19937& random, unsigned length) {
  std::string text;
  for (; length > 0; --length)
    text += static_cast<char>('a' + random() % 2);
  return text;
}

// The first end of any of them in the whole text, and where the longest that ends there begins.
struct Found {
  size_t begin, end;
};
Found search(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      const bool here = std::string_view(text).substr(0, end).ends_with(stop);
      if (here) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {end - longest, end};
  }
  return {text.size(), std::string::npos};
}

// The pieces shown, and what is found, follow from the whole text, however it arrives.
TEST(StopTexts, PiecesDoNotMatter) {
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_text(random, random() % 20);
    std::vector<std::string> texts;
    for (unsigned i = 1 + random() % 3; i > 0; --i)
      texts.push_back(random_text(random, 1 + random() % 4));
    StopTexts stops(texts);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 4;
      shown += stops.push(std::string_view(text).substr(at, size));
      ASSERT_TRUE(text.starts_with(shown));
      at += size;
    }
    shown += stops.flush();
    const Found wanted = search(text, texts);
    ASSERT_EQ(shown, text.substr(0, wanted.begin)) << text;
    ASSERT_EQ(stops.found().has_value(), wanted.end != std::string::npos);
    if (stops.found()) {
      ASSERT_EQ(*stops.found(), text.substr(wanted.begin, wanted.end - wanted.begin));
    }
  }
}

}  // namespace
}  // namespace millrace
