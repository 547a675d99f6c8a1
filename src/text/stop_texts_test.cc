#include "text/stop_texts.h"

#include <random>

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

TEST(StopTexts, TheOneThatBeginsFirstEndsTheText) {
  StopTexts stops({"late", "a late"});
  EXPECT_EQ(stops.push("it is a late hour"), "it is ");
  EXPECT_EQ(stops.found(), "a late");
}

TEST(StopTexts, OfTwoThatBeginTogetherTheShorter) {
  StopTexts stops({"stop it", "stop"});
  EXPECT_EQ(stops.push("do stop it"), "do ");
  EXPECT_EQ(stops.found(), "stop");
}

// The pieces shown, and what is found, follow from the whole text, however it arrives: with one
// stop text there is no doubt which comes first.
TEST(StopTexts, PiecesDoNotMatter) {
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string text, stop;
    for (unsigned i = random() % 20; i > 0; --i)
      text += static_cast<char>('a' + random() % 2);
    for (unsigned i = 1 + random() % 4; i > 0; --i)
      stop += static_cast<char>('a' + random() % 2);
    StopTexts stops({stop});
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 4;
      shown += stops.push(std::string_view(text).substr(at, size));
      ASSERT_TRUE(text.starts_with(shown));
      at += size;
    }
    shown += stops.flush();
    const size_t at = text.find(stop);
    ASSERT_EQ(shown, text.substr(0, at)) << text << " until " << stop;
    ASSERT_EQ(stops.found().has_value(), at != std::string::npos);
  }
}

}  // namespace
}  // namespace millrace
