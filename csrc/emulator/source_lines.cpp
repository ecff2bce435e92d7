// From addresses to source lines: frame pointers give the callers, addr2line the lines.
#include <dlfcn.h>
#include <link.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "emulator/place.h"
#include "emulator/thread.h"

extern char** environ;

namespace fastconv::emulator {
namespace {

struct Cache {
  std::mutex mutex;
  std::map<const void*, std::vector<SourceLine>> lines;
};

Cache& cache() {
  static Cache* const cache = new Cache;  // never destroyed: pool threads may outlive the module's destructors
  return *cache;
}

// What the program prints, and an empty string where it cannot be run.
std::string output_of(std::vector<std::string> arguments) {
  int ends[2];
  if (pipe(ends) != 0) return "";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1, 0);
  std::vector<char*> words;
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  if (error == 0) {
    char buffer[4096];
    for (;;) {
      const ssize_t bytes = read(ends[0], buffer, sizeof(buffer));
      if (bytes > 0) {
        output.append(buffer, static_cast<size_t>(bytes));
      } else if (bytes == 0 || errno != EINTR) {
        break;
      }
    }
    waitpid(child, nullptr, 0);
  }
  close(ends[0]);
  return output;
}

// The part of a path that a reader needs: from the source tree on.
std::string short_path(const std::string& path) {
  for (const char* root : {"/csrc/", "/tests/"}) {
    const size_t place = path.rfind(root);
    if (place != std::string::npos) return path.substr(place + 1);
  }
  return path;
}

// Functions without their return type and parameters: "void fastconv::pool<float, 2>(fastconv::Parameters)" is
// fastconv::pool<float, 2>.
std::string short_function(const std::string& name) {
  int depth = 0;
  size_t begin = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name.compare(i, 10, "operator()") == 0 || name.compare(i, 11, "(anonymous ") == 0) {
      i += 10;
    } else if (name[i] == '<' || name[i] == '{') {
      ++depth;
    } else if (name[i] == '>' || name[i] == '}') {
      --depth;
    } else if (name[i] == ' ' && depth == 0) {
      begin = i + 1;
    } else if (name[i] == '(' && depth == 0) {
      return name.substr(begin, i - begin);
    }
  }
  return name;
}

// addr2line prints for each address "0x...", then pairs of lines: function, file:line.
void parse(const std::string& output, const std::map<uintptr_t, const void*>& sites, Cache& cache) {
  std::vector<SourceLine>* frames = nullptr;
  std::string function;
  size_t begin = 0;
  bool wants_place = false;
  while (begin < output.size()) {
    size_t end = output.find('\n', begin);
    if (end == std::string::npos) end = output.size();
    const std::string text = output.substr(begin, end - begin);
    begin = end + 1;
    if (!wants_place && text.compare(0, 2, "0x") == 0) {
      const auto found = sites.find(std::strtoull(text.c_str(), nullptr, 16));
      frames = found == sites.end() ? nullptr : &cache.lines[found->second];
    } else if (!wants_place) {
      function = text;
      wants_place = true;
    } else {
      wants_place = false;
      const size_t colon = text.rfind(':');
      const int line = colon == std::string::npos ? 0 : std::atoi(text.c_str() + colon + 1);
      if (frames != nullptr && line > 0) {
        frames->push_back({short_function(function), short_path(text.substr(0, colon)), line});
      }
    }
  }
}

void resolve(const std::vector<const void*>& sites, Cache& cache) {
  std::map<std::string, std::map<uintptr_t, const void*>> by_module;
  for (const void* site : sites) {
    if (!cache.lines.emplace(site, std::vector<SourceLine>{}).second) continue;
    Dl_info info;
    link_map* module = nullptr;
    const void* call = static_cast<const char*>(site) - 1;
    if (dladdr1(call, &info, reinterpret_cast<void**>(&module), RTLD_DL_LINKMAP) == 0 || module == nullptr) continue;
    by_module[info.dli_fname][reinterpret_cast<uintptr_t>(call) - module->l_addr] = site;
  }
  constexpr size_t kAtOnce = 500;  // well below any limit on the length of a command line
  for (const auto& [file, addresses] : by_module) {
    for (auto next = addresses.begin(); next != addresses.end();) {
      std::vector<std::string> arguments{"addr2line", "-a", "-i", "-f", "-C", "-e", file};
      for (size_t count = 0; count < kAtOnce && next != addresses.end(); ++count, ++next) {
        char text[32];
        std::snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(next->first));
        arguments.push_back(text);
      }
      parse(output_of(std::move(arguments)), addresses, cache);
    }
  }
}

bool in_kernel(const SourceLine& line) {
  for (const char* elsewhere : {"csrc/ptx/", "csrc/emulator/", "csrc/common/", "/usr/", "csrc/launch/launch.h"}) {
    if (line.file.compare(0, std::string(elsewhere).size(), elsewhere) == 0) return false;
  }
  return true;
}

}  // namespace

std::vector<const void*> call_chain(const Place& place) {
  std::vector<const void*> chain{place.site};
#if defined(__x86_64__) || defined(__aarch64__)
  // A frame begins with its caller's frame and the address it returns to. Everything read lies on this thread's stack.
  constexpr size_t kDeepest = 32;
  uintptr_t frame = reinterpret_cast<uintptr_t>(place.frame);
  const uintptr_t end = (frame & ~(kStackBytes - 1)) + kStackBytes;
  while (frame != 0 && chain.size() < kDeepest) {
    const uintptr_t* words = reinterpret_cast<const uintptr_t*>(frame);
    const uintptr_t caller = words[0];
    if (caller <= frame || caller + 2 * sizeof(uintptr_t) > end || caller % sizeof(uintptr_t) != 0) break;
    const uintptr_t site = reinterpret_cast<const uintptr_t*>(caller)[1];
    if (site == 0) break;
    chain.push_back(reinterpret_cast<const void*>(site));
    frame = caller;
  }
#endif
  return chain;
}

void look_up_lines(const std::vector<const void*>& sites) {
  Cache& all = cache();
  const std::lock_guard<std::mutex> lock(all.mutex);
  resolve(sites, all);
}

std::vector<SourceLine> source_lines(const void* site) {
  Cache& all = cache();
  const std::lock_guard<std::mutex> lock(all.mutex);
  resolve({site}, all);
  return all.lines[site];
}

std::string describe(const std::vector<const void*>& chain) {
  look_up_lines(chain);
  std::string text;
  int calls = 0;
  for (const void* site : chain) {
    for (const SourceLine& line : source_lines(site)) {
      if (!in_kernel(line) || calls == 4) continue;
      text +=
          (calls++ == 0 ? "" : ", called from ") + line.file + ":" + std::to_string(line.line) + " in " + line.function;
    }
  }
  if (!text.empty()) return text;
  for (const void* site : chain) {
    const std::vector<SourceLine> lines = source_lines(site);
    if (!lines.empty()) return lines[0].file + ":" + std::to_string(lines[0].line) + " in " + lines[0].function;
  }
  Dl_info info;
  if (dladdr(chain[0], &info) == 0) return "an unknown place";
  char offset[32];
  std::snprintf(offset, sizeof(offset), "+0x%zx",
                static_cast<size_t>(static_cast<const char*>(chain[0]) - static_cast<const char*>(info.dli_fbase)));
  return info.dli_fname + std::string(offset) + " (its source line is unknown: no addr2line, or a stripped module)";
}

std::string line_of(const void* site) {
  const std::vector<SourceLine> lines = source_lines(site);
  for (const SourceLine& line : lines) {
    if (in_kernel(line)) return line.file + ":" + std::to_string(line.line);
  }
  return lines.empty() ? "" : lines[0].file + ":" + std::to_string(lines[0].line);
}

bool same_line(const void* site, const void* other) {
  if (site == other) return true;
  const std::vector<SourceLine> lines = source_lines(site), others = source_lines(other);
  if (lines.empty() || lines.size() != others.size()) return false;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].line != others[i].line || lines[i].file != others[i].file) return false;
  }
  return true;
}

}  // namespace fastconv::emulator
