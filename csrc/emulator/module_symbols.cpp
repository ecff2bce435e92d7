#include "emulator/module_symbols.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <unordered_map>

namespace fastconv::emulator {
namespace {

struct Module {
  std::string file;
  uintptr_t base = 0;
  std::vector<ModuleRange> ranges;
  size_t segment_bytes = 0;
  std::vector<SharedArray> arrays;
  std::unordered_map<uintptr_t, std::string> functions;  // by address in the file
};

// Touching it makes the dynamic linker allocate this thread's segment.
thread_local volatile char segment_anchor;

template <class Visit>
void visit_own_module(const Visit& visit) {
  struct Search {
    const Visit& visit;
    uintptr_t address;
  } search{visit, reinterpret_cast<uintptr_t>(&visit_own_module<Visit>)};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* argument) {
        const Search& search = *static_cast<const Search*>(argument);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr) & header = info->dlpi_phdr[i];
          const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
          if (header.p_type == PT_LOAD && search.address >= begin && search.address - begin < header.p_memsz) {
            search.visit(*info);
            return 1;
          }
        }
        return 0;
      },
      &search);
}

std::string variable_name(const std::string& symbol) {
  int status = 0;
  char* demangled = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string name = status == 0 ? demangled : symbol;
  std::free(demangled);
  const size_t colons = name.rfind("::");
  return colons == std::string::npos ? name : name.substr(colons + 2);
}

void read_symbols(Module& module) {
  std::ifstream file(module.file, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (bytes.size() < sizeof(ElfW(Ehdr)) || bytes.compare(0, SELFMAG, ELFMAG) != 0) return;
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(bytes.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(bytes.data() + header->e_shoff);
  for (int s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const char* names = bytes.data() + sections[sections[s].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(bytes.data() + sections[s].sh_offset);
    for (size_t i = 0; i < sections[s].sh_size / sizeof(ElfW(Sym)); ++i) {
      const ElfW(Sym) & symbol = symbols[i];
      const std::string name = names + symbol.st_name;
      if (symbol.st_shndx == SHN_UNDEF) continue;
      const int type = symbol.st_info & 15;
      if (type == STT_FUNC) module.functions.emplace(symbol.st_value, name);
      if (type == STT_TLS && symbol.st_size > 0 && name.compare(0, 3, "_ZZ") == 0) {
        module.arrays.push_back({symbol.st_value, symbol.st_size, name, variable_name(name)});
      }
    }
  }
  std::sort(module.arrays.begin(), module.arrays.end(),
            [](const SharedArray& a, const SharedArray& b) { return a.offset < b.offset; });
}

const Module& own_module() {
  static const Module* const module = [] {
    Module* found = new Module;  // never destroyed: pool threads may outlive the module's destructors
    visit_own_module([&](const dl_phdr_info& info) {
      Dl_info file;
      if (dladdr(reinterpret_cast<const void*>(&shared_arrays), &file) != 0) found->file = file.dli_fname;
      found->base = info.dlpi_addr;
      for (int i = 0; i < info.dlpi_phnum; ++i) {
        const ElfW(Phdr) & header = info.dlpi_phdr[i];
        const uintptr_t begin = info.dlpi_addr + header.p_vaddr;
        if (header.p_type == PT_LOAD) found->ranges.push_back({begin, begin + header.p_memsz});
        if (header.p_type == PT_TLS) found->segment_bytes = header.p_memsz;
      }
    });
    read_symbols(*found);
    return found;
  }();
  return *module;
}

}  // namespace

const std::vector<SharedArray>& shared_arrays() {
  return own_module().arrays;
}

bool belongs_to(const SharedArray& array, const std::string& function_symbol) {
  // _ZZ<function>E<variable> for a function _Z<function>.
  if (function_symbol.compare(0, 2, "_Z") != 0) return false;
  const size_t length = function_symbol.size() - 2;
  return array.symbol.compare(3, length, function_symbol, 2, length) == 0 && array.symbol[3 + length] == 'E';
}

const std::string& symbol_of(const void* function) {
  static const std::string unknown;
  const Module& module = own_module();
  const auto found = module.functions.find(reinterpret_cast<uintptr_t>(function) - module.base);
  return function == nullptr || found == module.functions.end() ? unknown : found->second;
}

size_t static_shared_bytes(const void* kernel) {
  static std::mutex mutex;
  static auto& known = *new std::map<const void*, size_t>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, is_new] = known.emplace(kernel, 0);
  if (is_new) {
    for (const SharedArray& array : shared_arrays()) {
      if (belongs_to(array, symbol_of(kernel))) place->second += array.bytes;
    }
  }
  return place->second;
}

ThreadSegment thread_segment() {
  segment_anchor = 1;
  ThreadSegment segment;
  visit_own_module([&](const dl_phdr_info& info) { segment.begin = reinterpret_cast<uintptr_t>(info.dlpi_tls_data); });
  segment.bytes = own_module().segment_bytes;
  return segment;
}

const std::vector<ModuleRange>& module_ranges() {
  return own_module().ranges;
}

uintptr_t module_base() {
  return own_module().base;
}

}  // namespace fastconv::emulator
