// The order in which the words of a stem's filter are multiplied. A warp reads a few words of several pixels at once:
// which words those are is free, as long as the weights follow the same order. Two words can be read together if no
// pixel's one lies in the bank of another pixel's other, unless it is the same word.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace fastconv::staged {

constexpr int kBanks = 32;

// What one instruction reads: so many words of each of these pixels.
struct WordReads {
  int words;
  std::vector<int> pixels;  // counted along the tile's row
};

struct Word {
  int number;  // in the natural order: tap row, tap column, channel
  int row, column;
  int place;  // in the image, seen from the first; in words
};

// Which distances between two words' places allow them to be read together. pixel_step: words between pixels.
class WordBanks {
 public:
  WordBanks(const WordReads& reads, int pixel_step) {
    for (int a : reads.pixels) {
      for (int b : reads.pixels) {
        const int distance = (a - b) * pixel_step;
        Meeting& meeting = meetings_[residue(distance)];
        meeting.is_one = !meeting.exists || (meeting.is_one && meeting.distance == distance);
        meeting.exists = true;
        meeting.distance = distance;
      }
    }
  }

  bool allow(int distance) const {
    const Meeting& meeting = meetings_[residue(distance)];
    return !meeting.exists || (meeting.is_one && meeting.distance == distance);
  }

 private:
  // How far apart two pixels are whose distance is so much modulo the banks. Words as far apart as that, and as no
  // other two pixels of this residue, are one word.
  struct Meeting {
    bool exists = false, is_one = false;
    int distance = 0;
  };

  static int residue(int distance) { return (distance % kBanks + kBanks) % kBanks; }

  std::array<Meeting, kBanks> meetings_{};
};

// Puts each word into the first group that has room and allows it. Empty where a word's own pixels are in conflict.
inline std::vector<std::vector<Word>> group_words(const std::vector<Word>& words, const WordBanks& banks,
                                                  int of_group) {
  std::vector<std::vector<Word>> groups;
  if (!banks.allow(0)) return groups;
  for (const Word& word : words) {
    const auto fits = [&](const std::vector<Word>& group) {
      return static_cast<int>(group.size()) < of_group &&
             std::all_of(
                 group.begin(), group.end(), [&](const Word& other) { return banks.allow(word.place - other.place); });
    };
    const auto found = std::find_if(groups.begin(), groups.end(), fits);
    found == groups.end() ? groups.push_back({word}) : found->push_back(word);
  }
  return groups;
}

// Groups without bank conflicts of at most `most_words` words, holes included; empty where no order that is tried has
// them. Orders: by rows, by columns, and by columns modulo 2 and 3.
inline std::vector<std::vector<Word>> conflict_free_groups(std::vector<Word> words, const WordReads& reads,
                                                           int pixel_step, int most_words) {
  using Key = std::array<int, 3>;
  constexpr int kOrders = 6;
  const auto key = [](const Word& word, int order) -> Key {
    const int modulus = 2 + (order - 2) / 2;
    if (order == 0) return {word.row, word.column, 0};
    if (order == 1) return {word.column, word.row, 0};
    if (order % 2 == 0) return {word.row, word.column % modulus, word.column};
    return {word.column % modulus, word.row, word.column};
  };
  const WordBanks banks(reads, pixel_step);
  for (int order = 0; order < kOrders; ++order) {
    std::stable_sort(words.begin(), words.end(),
                     [&](const Word& a, const Word& b) { return key(a, order) < key(b, order); });
    auto groups = group_words(words, banks, reads.words);
    if (static_cast<int>(groups.size()) * reads.words <= most_words) return groups;
    if (groups.empty()) break;
  }
  return {};
}

}  // namespace fastconv::staged
