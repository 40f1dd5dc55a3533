// A CUDA device for the CPU build of torch.
//
// Its tensors are of device type "cuda". Their values are real; they lie in host memory,
// given out by an allocator that counts and has a limit. Its kernels are the CPU's,
// behind checks that raise what CUDA raises: tensors on different devices, out of
// memory, a device that is lost. What needs neither a driver nor kernels of its own
// (dispatch, hooks, offloading, planning) goes the very way that it goes on a GPU.
//
// All that is counted lies in a file that the processes on one card share, so that each
// sees what the others take; simulated.py reads and writes the same fields.

#include <ATen/EmptyTensor.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_cpu_dispatch.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

namespace {

using at::Tensor;
using c10::DispatchKey;
using c10::DispatchKeySet;
using Count = std::atomic<int64_t>;

const c10::Device kCard(c10::kCUDA, 0);

// -- the card: memory that several processes take from ---------------------------------

// One process on the card. Bytes, except for pid and lost (0 or 1); pinned are those of
// the host's memory.
struct Process {
  Count pid, used, peak, to_card, unpinned, to_host, lost, pinned;
};

// broken is 1 where the card fails in every process, unpinnable 1 where the host has no
// memory to pin.
struct Card {
  Count limit, broken, unpinnable, spare[5];
  Process processes[31];
};

Card* open_card() {
  const char* path = std::getenv("SIMULATED_GPU_CARD");
  int file = path ? open(path, O_RDWR) : -1;
  void* page = file < 0 ? MAP_FAILED
                        : mmap(nullptr, sizeof(Card), PROT_READ | PROT_WRITE,
                               MAP_SHARED, file, 0);
  TORCH_CHECK(page != MAP_FAILED, "SIMULATED_GPU_CARD is not the file of a card");
  return static_cast<Card*>(page);
}

Card& card() {
  static Card* opened = open_card();
  return *opened;
}

bool is_alive(int64_t pid) {
  return pid != 0 && (kill(pid_t(pid), 0) == 0 || errno == EPERM);
}

// This process's row, taken from a process that has ended where there is none yet. Asked
// for by process id each time: a fork is another process.
Process& own() {
  static std::mutex mutex;
  std::lock_guard<std::mutex> lock(mutex);
  const int64_t pid = getpid();
  for (auto& row : card().processes)
    if (row.pid == pid) return row;
  for (auto& row : card().processes) {
    int64_t before = row.pid;
    if (is_alive(before) || !row.pid.compare_exchange_strong(before, pid)) continue;
    for (Count* count : {&row.used, &row.peak, &row.to_card, &row.unpinned,
                         &row.to_host, &row.lost, &row.pinned})
      *count = 0;
    return row;
  }
  TORCH_CHECK(false, "too many processes on the simulated card");
}

// What all living processes have taken.
int64_t used_by_all() {
  int64_t sum = 0;
  for (auto& row : card().processes)
    if (row.used && is_alive(row.pid)) sum += row.used;
  return sum;
}

// A kernel that went wrong: from then on everything fails in this process, and on a card
// that is broken in the next one too.
void check_not_lost() {
  if (own().lost || card().broken)
    throw c10::AcceleratorError({__func__, __FILE__, uint32_t(__LINE__)}, 700,
        "CUDA error: an illegal memory access was encountered");
}

// -- memory ------------------------------------------------------------------------------

struct Block {
  void* data;
  int64_t size;
};

void give_back(void* context) {
  auto* block = static_cast<Block*>(context);
  own().used -= block->size;
  std::free(block->data);
  delete block;
}

struct CardAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t wanted) override {
    check_not_lost();
    if (wanted == 0) return {nullptr, nullptr, &c10::detail::deleteNothing, kCard};
    // CUDA's own granularity.
    const int64_t size = (wanted + 511) / 512 * 512;
    Process& process = own();
    process.used += size;
    if (const int64_t all = used_by_all(); all > card().limit) {
      process.used -= size;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ",
          size, " bytes; ", all - size, " of ", card().limit.load(), " are in use");
    }
    int64_t peak = process.peak;
    while (process.used > peak &&
           !process.peak.compare_exchange_weak(peak, process.used)) {}
    auto* block = new Block{std::aligned_alloc(64, size), size};
    return {block->data, block, &give_back, kCard};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t count) const override {
    std::memcpy(to, from, count);
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override {
    return {};
  }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override { own().peak = own().used.load(); }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override {
    return {size_t(card().limit - used_by_all()), size_t(card().limit)};
  }
};
CardAllocator card_allocator;

// Pinned host memory, to tell copies from it from those that wait. What is given back
// stays pinned until the cache is emptied, as with CUDA.
std::mutex pinned_mutex;
std::map<const char*, size_t> pinned_blocks;
std::vector<char*> pinned_cache;

void unpin(void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  pinned_cache.push_back(static_cast<char*>(data));
}

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> lock(pinned_mutex);
  auto after = pinned_blocks.upper_bound(static_cast<const char*>(data));
  if (after == pinned_blocks.begin()) return false;
  const auto& [start, size] = *std::prev(after);
  return static_cast<const char*>(data) < start + size;
}

struct PinnedAllocator final : at::HostAllocator {
  c10::DataPtr allocate(size_t size) override {
    const c10::Device cpu(c10::kCPU);
    if (size == 0) return {nullptr, nullptr, &c10::detail::deleteNothing, cpu};
    if (card().unpinnable)
      throw c10::AcceleratorError({__func__, __FILE__, uint32_t(__LINE__)}, 2,
                                  "CUDA error: out of memory");
    void* data = std::aligned_alloc(64, (size + 63) / 64 * 64);
    own().pinned += size;
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned_blocks[static_cast<char*>(data)] = size;
    return {data, data, &unpin, cpu};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &unpin; }
  void copy_data(void* to, const void* from, size_t count) const override {
    std::memcpy(to, from, count);
  }
  bool record_event(void*, void*, c10::Stream) override { return true; }
  void empty_cache() override {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    for (char* data : pinned_cache) {
      own().pinned -= pinned_blocks[data];
      pinned_blocks.erase(data);
      std::free(data);
    }
    pinned_cache.clear();
  }
  at::HostStats get_stats() override { return {}; }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};
PinnedAllocator pinned_allocator;

// -- what torch asks a device: streams, events, whether it is there ----------------------

thread_local c10::StreamId current_stream = 0;
Count next_stream{1};

// Everything is done at once, so there is nothing to wait for.
struct CardGuard final : c10::impl::DeviceGuardImplInterface {
  using Stream = c10::Stream;
  static Stream stream(c10::StreamId id) { return Stream(Stream::UNSAFE, kCard, id); }

  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return kCard; }
  c10::Device getDevice() const override { return kCard; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  Stream getStream(c10::Device) const override { return stream(current_stream); }
  Stream getDefaultStream(c10::Device) const override { return stream(0); }
  Stream getNewStream(c10::Device, int) const override { return stream(next_stream++); }
  Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    return stream(next_stream++);
  }
  Stream exchangeStream(Stream other) const override {
    return stream(std::exchange(current_stream, other.id()));
  }
  void record(void** event, const Stream&, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    check_not_lost();
    if (!*event) *event = new int(0);
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<int*>(event);
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { check_not_lost(); }
  void synchronizeEvent(void*) const override { check_not_lost(); }
  void synchronizeDevice(const c10::DeviceIndex) const override { check_not_lost(); }
};

struct CardHooks final : at::CUDAHooksInterface {
  explicit CardHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &card_allocator; }
  void deviceSynchronize(c10::DeviceIndex) const override { check_not_lost(); }
  c10::Device getDeviceFromPtr(void*) const override { return kCard; }
};

// -- kernels: the CPU's, on tensors that look into the card's memory ---------------------

// The same memory as a CPU tensor; valid for as long as ``tensor`` is.
Tensor on_cpu(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  c10::DataPtr data(tensor.storage().mutable_data(), nullptr,
                    &c10::detail::deleteNothing, c10::Device(c10::kCPU));
  c10::Storage storage(c10::Storage::use_byte_size_t(), tensor.storage().nbytes(),
                       std::move(data), nullptr, false);
  auto seen = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), DispatchKeySet(DispatchKey::CPU), tensor.dtype());
  seen.unsafeGetTensorImpl()->set_sizes_and_strides(
      tensor.sizes(), tensor.strides(), tensor.storage_offset());
  seen._set_conj(tensor.is_conj());
  seen._set_neg(tensor.is_neg());
  return seen;
}

void copy_bytes(const Tensor& to, const Tensor& from) {
  if (from.numel())
    std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
}

// A CPU kernel's new tensor, moved to the card.
Tensor to_card(const Tensor& made) {
  auto dense = made.is_non_overlapping_and_dense() ? made : made.contiguous();
  auto moved = at::empty_strided(dense.sizes(), dense.strides(),
                                 dense.options().device(kCard).pinned_memory(false));
  copy_bytes(moved, dense);
  return moved;
}

// CUDA's own kernels for these take indices that lie on the CPU.
bool takes_cpu_indices(const std::string& name) {
  return name == "aten::index" || name == "aten::index_put_" ||
         name == "aten::_index_put_impl_";
}

// One call of any operator: its arguments go to the CPU, its results come back.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack* stack)
      : schema_(op.schema()), stack_(stack) {}

  void take_arguments() {
    const auto& arguments = schema_.arguments();
    const size_t first = stack_->size() - arguments.size();
    for (size_t i = 0; i < arguments.size(); ++i) {
      const auto* alias = arguments[i].alias_info();
      take((*stack_)[first + i], alias && alias->isWrite());
    }
    TORCH_CHECK(!(saw_cpu_ && saw_card_) || takes_cpu_indices(schema_.name()),
        "Expected all tensors to be on the same device, but found at least two devices, "
        "cuda:0 and cpu! (in ", schema_.name(), ")");
  }

  void give_results() {
    for (auto& [asked, made] : grown_) {
      at::native::resize_(asked, made.sizes());
      copy_bytes(asked, made.contiguous());
    }
    const size_t count = schema_.returns().size();
    for (size_t i = stack_->size() - count; i < stack_->size(); ++i) {
      auto& value = (*stack_)[i];
      if (value.isTensor()) {
        value = give(value.toTensor());
      } else if (value.isTensorList()) {
        c10::List<Tensor> given;
        for (const Tensor& tensor : value.toTensorVector()) given.push_back(give(tensor));
        value = given;
      }
    }
  }

 private:
  void take(c10::IValue& value, bool written) {
    if (value.isTensor()) {
      value = take(value.toTensor(), written);
    } else if (value.isTensorList()) {
      c10::List<Tensor> taken;
      for (const Tensor& tensor : value.toTensorVector())
        taken.push_back(take(tensor, written));
      value = taken;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> taken;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorList().vec())
        taken.push_back(tensor ? std::optional(take(*tensor, false)) : std::nullopt);
      value = taken;
    } else if (value.isDevice()) {
      saw_card_ |= value.toDevice().is_cuda();
      value = c10::Device(c10::kCPU);
    } else if (value.isGenerator()) {
      TORCH_CHECK(value.toGenerator().device().is_cuda(),
          "Expected a 'cuda' device type for generator but found 'cpu'");
    }
  }

  Tensor take(const Tensor& tensor, bool written) {
    if (!tensor.defined()) return tensor;
    if (!tensor.is_cuda()) {
      // A single number may come from anywhere.
      saw_cpu_ |= tensor.dim() > 0 && tensor.device().is_cpu();
      return tensor;
    }
    saw_card_ = true;
    // An "out" that the kernel makes as large as it needs.
    const bool grows = written && tensor.numel() == 0;
    auto seen = grows ? at::empty(tensor.sizes(), tensor.options().device(at::kCPU))
                      : on_cpu(tensor);
    (grows ? grown_ : seen_).emplace_back(tensor, seen);
    return seen;
  }

  Tensor give(const Tensor& made) {
    if (!made.defined()) return made;
    for (const auto* pairs : {&seen_, &grown_})
      for (auto& [asked, seen] : *pairs)
        if (seen.is_same(made)) return asked;
    for (auto& [asked, seen] : seen_)
      // A view of an argument.
      if (made.storage().data() && made.storage().data() == seen.storage().data() &&
          made.dtype() == asked.dtype())
        return at::native::as_strided_tensorimpl(
            asked, made.sizes(), made.strides(), made.storage_offset());
    return to_card(made);
  }

  const c10::FunctionSchema& schema_;
  torch::jit::Stack* stack_;
  std::vector<std::pair<Tensor, Tensor>> seen_, grown_;  // the card's, the CPU's
  bool saw_cpu_ = false, saw_card_ = false;
};

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  check_not_lost();
  Call call(op, stack);
  call.take_arguments();
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  call.give_results();
}

// Products of bfloat16 in float: a CPU without AVX-512 takes ten times as long for its own.
void run_wide_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  check_not_lost();
  Call call(op, stack);
  call.take_arguments();
  bool is_narrow = false;
  for (auto value = stack->end() - op.schema().arguments().size(); value != stack->end();
       ++value) {
    if (!value->isTensor() || !value->toTensor().defined()) continue;
    if (value->toTensor().scalar_type() != at::kBFloat16) continue;
    *value = value->toTensor().to(at::kFloat);
    is_narrow = true;
  }
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  if (is_narrow) stack->back() = stack->back().toTensor().to(at::kBFloat16);
  call.give_results();
}

// -- what is no kernel: new tensors, copies, views ---------------------------------------

Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
             std::optional<at::Layout>, std::optional<at::Device>,
             std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(!pinned.value_or(false), "Only dense CPU tensors can be pinned");
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &card_allocator,
      DispatchKeySet(DispatchKey::CUDA), c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                     std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                     std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size),
      C10_AS_INTARRAYREF_SLOW(stride), &card_allocator,
      DispatchKeySet(DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

Tensor& copy(Tensor& self, const Tensor& from, bool /*non_blocking*/) {
  check_not_lost();
  if (from.is_meta())
    TORCH_CHECK_NOT_IMPLEMENTED(false, "Cannot copy out of meta tensor; no data!");
  const int64_t bytes = from.nbytes();
  if (!self.is_cuda()) {
    own().to_host += bytes;
  } else if (!from.is_cuda()) {
    own().to_card += bytes;
    if (!is_pinned(from.const_data_ptr())) own().unpinned += bytes;
  }
  on_cpu(self).copy_(on_cpu(from));
  return self;
}

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef size,
                  c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size),
      C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::make_optional(offset->expect_int()) : std::nullopt);
}

Tensor view(const Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef size,
                     c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

const Tensor& resize(const Tensor& self, c10::SymIntArrayRef size,
                     std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(size), format);
}

Tensor& set(Tensor& self, at::Storage source, c10::SymInt offset,
            c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::cpu::set_(self, std::move(source), offset.expect_int(),
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

at::Scalar number(const Tensor& self) {
  check_not_lost();
  return on_cpu(self).item();
}

void record_stream(Tensor&, c10::Stream) {}

C10_REGISTER_GUARD_IMPL(CUDA, CardGuard)
const bool allocator_is_set =
    (c10::SetAllocator(c10::kCUDA, &card_allocator, /*priority=*/1),
     at::setHostAllocator(c10::kCUDA, &pinned_allocator, /*priority=*/1), true);

}  // namespace

namespace at {
using ::CardHooks;
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, CardHooks);
}  // namespace at

TORCH_LIBRARY_IMPL(_, CUDA, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("copy_", &copy);
  library.impl("as_strided", &as_strided);
  library.impl("view", &view);
  library.impl("_reshape_alias", &reshape_alias);
  library.impl("resize_", &resize);
  library.impl("set_.source_Storage_storage_offset", &set);
  library.impl("_local_scalar_dense", &number);
  library.impl("record_stream", &record_stream);
  // These have a kernel for devices without one of their own, which would come before
  // the fallback and look for parts that the CPU has not.
  for (const char* name :
       {"native_group_norm", "native_layer_norm", "upsample_nearest2d",
        "index_put_", "_index_put_impl_", "_softmax", "gelu", "silu", "native_dropout"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
  for (const char* name : {"convolution", "mm", "addmm", "bmm", "baddbmm"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_wide_on_cpu>());
}
