// The least that PyTorch asks of a CUDA device, on a build that has none: one device, one stream, memory of the host.
// Kernels come from Python (device.py); here stand what has no Python: the guard, the hooks and the relabelling of
// memory from one device to the other without a copy.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

namespace {

constexpr auto CUDA = c10::DeviceType::CUDA;
const c10::Device GPU(CUDA, 0);

c10::Stream the_stream() {
  return c10::Stream(c10::Stream::DEFAULT, GPU);
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return CUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return GPU; }
  c10::Device getDevice() const override { return GPU; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return the_stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return the_stream(); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return the_stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return the_stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
};

struct Hooks final : at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs = {}) {}
  bool hasCUDA() const override { return true; }
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
  void deviceSynchronize(c10::DeviceIndex) const override {}
};

// Bytes under the device's name, now and at most: what lies at one place counts once, whatever it is seen through.
class Memory {
 public:
  void hold(const void* where, int64_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& place = places_[where];
    now_ += std::max<int64_t>(0, bytes - place.bytes);
    place = {place.holders + 1, std::max(place.bytes, bytes)};
    most_ = std::max(most_, now_);
  }
  void release(const void* where) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto place = places_.find(where);
    if (--place->second.holders == 0) {
      now_ -= place->second.bytes;
      places_.erase(place);
    }
  }
  int64_t now() const { return now_; }
  int64_t most() const { return most_; }
  void forget_most() { most_ = now_; }

 private:
  struct Place {
    int64_t holders = 0, bytes = 0;
  };
  std::unordered_map<const void*, Place> places_;
  std::mutex mutex_;
  int64_t now_ = 0, most_ = 0;
};

Memory& memory() {
  static auto* one = new Memory;  // never destroyed: tensors may outlive what is
  return *one;
}

// What a relabelled tensor keeps alive.
struct Kept {
  c10::Storage storage;
  const void* where;
  bool on_gpu;
  ~Kept() {
    if (on_gpu) {
      memory().release(where);
    }
  }
};

// The same memory under the other device's name; it lives as long as either of the two.
at::Tensor relabel(const at::Tensor& t, bool on_gpu) {
  const c10::Storage source = t.storage();
  const auto bytes = static_cast<int64_t>(source.nbytes());
  auto* kept = new Kept{source, source.data(), on_gpu};
  if (on_gpu) {
    memory().hold(kept->where, bytes);
  }
  c10::DataPtr data(
      const_cast<void*>(kept->where), kept, [](void* k) { delete static_cast<Kept*>(k); },
      on_gpu ? GPU : c10::Device(c10::DeviceType::CPU));
  c10::Storage storage(c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), bytes, std::move(data), nullptr, false));
  const c10::DispatchKeySet keys(on_gpu ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU);
  auto out = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, t.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return out;
}

// What an operation left of an argument that it gave another shape or other memory.
void adopt(const at::Tensor& into, const at::Tensor& host) {
  const at::Tensor made = relabel(host, true);
  auto* impl = into.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(made.storage());
  impl->set_sizes_and_strides(made.sizes(), made.strides(), made.storage_offset());
}

at::Tensor& set_(at::Tensor& t, c10::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return t;
}

at::Tensor& set_whole(at::Tensor& t, c10::Storage source) {
  const auto size = static_cast<int64_t>(source.nbytes() / t.itemsize());
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_sizes_and_strides(c10::IntArrayRef{size}, c10::IntArrayRef{1}, 0);
  return t;
}

const Guard guard;
const c10::impl::DeviceGuardImplRegistrar registrar(CUDA, &guard);

}  // namespace

namespace at {
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", Hooks);
}

TORCH_LIBRARY(emulated, m) {
  m.def("relabel(Tensor t, bool on_gpu) -> Tensor");
  m.def("adopt(Tensor into, Tensor host) -> ()");
  m.def("memory_now() -> int", [] { return memory().now(); });
  m.def("memory_most() -> int", [] { return memory().most(); });
  m.def("forget_memory_most() -> ()", [] { memory().forget_most(); });
}
TORCH_LIBRARY_IMPL(emulated, CPU, m) {
  m.impl("relabel", relabel);
}
TORCH_LIBRARY_IMPL(emulated, CUDA, m) {
  m.impl("relabel", relabel);
  m.impl("adopt", adopt);
}
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("set_.source_Storage", set_whole);
  m.impl("set_.source_Storage_storage_offset", set_);
}
