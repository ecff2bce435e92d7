#include "launch/pointwise_conv.h"

#include <algorithm>
#include <memory>

#include "launch/mma_conv.h"

namespace fastconv {
namespace mma {
namespace {

bool has_dense_planes(const Operand& operand) {
  const auto& [sizes, strides] = operand;
  return (strides[3] == 1 || sizes[3] == 1) && (strides[2] == sizes[3] || sizes[2] == 1);
}

std::string why_not(const ConvProblem& problem) {
  const std::string reason = why_not_any(problem);
  if (!reason.empty()) return reason;
  if (problem.groups != 1) return "grouped";
  if (problem.w.sizes[2] != 1 || problem.w.sizes[3] != 1) return "not a 1x1 filter";
  if (problem.stride[0] != 1 || problem.stride[1] != 1) return "a stride: this kernel is for stride 1";
  for (int padding : problem.padding) {
    if (padding != 0) return "padding: this kernel is for none";
  }
  if (!has_dense_planes(problem.x) || !has_dense_planes(problem.y)) return "x and y must be NCHW, planes without gaps";
  if (problem.has_residual && !has_dense_planes(problem.residual)) {
    return "the residual must be NCHW, planes without gaps";
  }
  if (problem.pass != ConvPass::wgrad && problem.w.strides[1] != 1 && problem.w.sizes[1] != 1) {
    return "the channels of w must be neighbours in memory";
  }
  return "";
}

// What the product's two sides are, but for the pointers.
struct Geometry {
  PointwisePass pass;
  int element, chunk;  // bytes of an element, elements of 16 bytes
  PointwiseOperand left{}, right{};
  int left_piece, right_piece;
  int64_t pixels, rows, columns, depth;  // columns and depth in whole chunks where they are pixels
  int64_t most_workspace_bytes;

  explicit Geometry(const ConvProblem& problem)
      : pass(problem.pass == ConvPass::fprop   ? PointwisePass::fprop
             : problem.pass == ConvPass::dgrad ? PointwisePass::dgrad
                                               : PointwisePass::wgrad),
        element(size_of(problem.dtype)),
        chunk(16 / element),
        pixels(problem.x.sizes[2] * problem.x.sizes[3]),
        most_workspace_bytes(problem.most_workspace_bytes) {
    const int64_t filters = problem.w.sizes[0], channels = problem.w.sizes[1];
    const auto [left_piece_bytes, left_operand] =
        pass == PointwisePass::wgrad ? planes_of(problem.y) : weights_of(problem.w);
    const auto [right_piece_bytes, right_operand] = planes_of(pass == PointwisePass::dgrad ? problem.y : problem.x);
    left = left_operand;
    right = right_operand;
    left_piece = left_piece_bytes;
    right_piece = right_piece_bytes;
    const int64_t all_pixels = problem.x.sizes[0] * round_up(pixels, chunk);
    rows = pass == PointwisePass::dgrad ? channels : filters;
    columns = pass == PointwisePass::wgrad ? round_up(channels, chunk) : all_pixels;
    depth = pass == PointwisePass::fprop ? channels : pass == PointwisePass::dgrad ? filters : all_pixels;
  }

  bool is_narrow() const { return std::min(left_piece, right_piece) < 16; }
  int64_t partial_elements() const { return pass == PointwisePass::wgrad ? rows * columns : 0; }
  int64_t partial_bytes(int splits) const { return splits > 1 ? 4 * splits * (partial_elements() + rows) : 0; }
  int most_splits() const {
    if (pass != PointwisePass::wgrad) return 1;
    return static_cast<int>(std::clamp<int64_t>(most_workspace_bytes / (4 * (partial_elements() + rows)), 1, 512));
  }
  int64_t blocks(const Tile& tile) const { return divide_up(rows, tile.rows) * divide_up(columns, tile.columns); }

 private:
  using Side = std::pair<int, PointwiseOperand>;

  int piece_of(int64_t length, std::initializer_list<int64_t> steps) const {
    int64_t piece = std::gcd(int64_t{16}, element * length);
    for (int64_t step : steps) piece = std::gcd(piece, element * step);
    return static_cast<int>(piece);
  }

  Side planes_of(const Operand& operand) const {
    const auto& [sizes, strides] = operand;
    const int64_t length = sizes[2] * sizes[3];
    PointwiseOperand side{};
    side.pitch = strides[1];
    side.batch = strides[0];
    side.chunks = FastDivider<uint32_t>(static_cast<uint32_t>(divide_up(length, chunk)));
    side.images = static_cast<int>(sizes[0]);
    side.length = static_cast<int>(length);
    side.rows = static_cast<int>(sizes[1]);
    return {piece_of(length, {sizes[1] > 1 ? strides[1] : 0, sizes[0] > 1 ? strides[0] : 0}), side};
  }

  Side weights_of(const Operand& w) const {
    PointwiseOperand side{};
    side.pitch = w.strides[0];
    side.chunks = FastDivider<uint32_t>(static_cast<uint32_t>(divide_up(w.sizes[1], chunk)));
    side.images = 1;
    side.length = static_cast<int>(w.sizes[1]);
    side.rows = static_cast<int>(w.sizes[0]);
    return {piece_of(w.sizes[1], {w.sizes[0] > 1 ? w.strides[0] : 0}), side};
  }
};

const KernelSet<PointwiseParameters>& kernels_for(const ConvProblem& problem, PointwisePass pass) {
  return for_types_of(problem, [&](auto element, auto precision) -> const KernelSet<PointwiseParameters>& {
    return pointwise_kernels<decltype(element), precision()>(pass);
  });
}

const std::vector<Kernel<PointwiseParameters>>& candidates_of(const ConvProblem& problem, const Geometry& geometry) {
  const auto& kernels = kernels_for(problem, geometry.pass);
  return geometry.is_narrow() ? kernels.narrow : kernels.tiles;
}

Work work_of(const ConvProblem& problem, const Geometry& geometry, const Tile& tile) {
  Work work{};
  work.blocks = geometry.blocks(tile);
  work.slices = static_cast<double>(divide_up(geometry.depth, tile.depth));
  work.element_size = geometry.element;
  work.precision = precision_of(problem);
  work.memory_bytes = static_cast<double>(problem.compulsory_bytes());
  work.partial_elements = static_cast<double>(geometry.partial_elements());
  work.row_copy = kPointwiseCopies.of(geometry.is_narrow(), geometry.left_piece);
  work.column_copy = kPointwiseCopies.of(geometry.is_narrow(), geometry.right_piece);
  return work;
}

std::vector<std::string> configs(const ConvProblem& problem) {
  if (!why_not(problem).empty()) return {""};
  const Geometry geometry(problem);
  return ranked_configs(problem.target, candidates_of(problem, geometry), geometry.most_splits(),
                        [&](const Tile& tile) { return work_of(problem, geometry, tile); });
}

std::string can_implement(const ConvProblem& problem, const std::string& text) {
  const std::string reason = why_not(problem);
  if (!reason.empty()) return reason;
  const Geometry geometry(problem);
  const auto chosen = choose(problem.target, candidates_of(problem, geometry), geometry.is_narrow(), text);
  if (!chosen.reason.empty()) return chosen.reason;
  if (geometry.partial_bytes(chosen.splits) > problem.most_workspace_bytes) {
    return too_much_workspace(problem, std::to_string(chosen.splits) + " splits");
  }
  const Tile& tile = chosen.kernel->tile;
  if (divide_up(geometry.depth, tile.depth) * (chosen.splits + 1) > INT32_MAX) return "2^31 slices or more";
  if (geometry.blocks(tile) * chosen.splits > INT32_MAX) return "2^31 blocks or more";
  return "";
}

// Everything but the pointers, for one tile.
PointwiseParameters parameters_for(const ConvProblem& problem, const Geometry& geometry, const Tile& tile, int splits) {
  PointwiseParameters p{};
  const bool is_wgrad = geometry.pass == PointwisePass::wgrad;
  const Operand& output = is_wgrad ? problem.w : geometry.pass == PointwisePass::dgrad ? problem.x : problem.y;
  p.left = geometry.left;
  p.right = geometry.right;
  p.output_row = output.strides[is_wgrad ? 0 : 1];
  p.output_batch = is_wgrad ? 0 : output.strides[0];
  p.residual_row = problem.residual.strides[1];
  p.residual_batch = problem.residual.strides[0];
  p.images = is_wgrad ? 1 : static_cast<int>(output.sizes[0]);
  p.length = static_cast<int>(is_wgrad ? output.sizes[1] : geometry.pixels);
  p.chunks = FastDivider<uint32_t>(static_cast<uint32_t>(divide_up(p.length, geometry.chunk)));
  p.rows = static_cast<int>(geometry.rows);
  p.row_tiles = FastDivider<uint32_t>(static_cast<uint32_t>(divide_up(geometry.rows, tile.rows)));
  p.tiles_of_split = FastDivider<uint32_t>(static_cast<uint32_t>(geometry.blocks(tile)));
  p.splits = FastDivider<uint32_t>(static_cast<uint32_t>(splits));
  p.slices = static_cast<int>(divide_up(geometry.depth, tile.depth));
  p.out.column_stride = is_wgrad ? output.strides[1] : 1;
  p.out.residual_column_stride = 1;
  p.out.activation = is_wgrad ? Activation::identity : problem.activation;
  p.out.partial_pitch = geometry.columns;
  p.out.partial_split_stride = geometry.partial_elements();
  const auto whole = [&](const Operand& operand) {
    return operand.strides[0] % geometry.chunk == 0 && operand.strides[1] % geometry.chunk == 0;
  };
  p.out.vector_access = is_wgrad ? output.strides[1] == 1 && output.strides[0] % geometry.chunk == 0
                                 : whole(output) && (!problem.has_residual || whole(problem.residual));
  return p;
}

// A problem and a tile made ready: what is launched once pointers are there.
class PointwiseLaunch {
 public:
  PointwiseLaunch(const ConvProblem& problem, const Kernel<PointwiseParameters>& kernel, int splits)
      : problem_(problem),
        geometry_(problem),
        kernel_(kernel),
        narrow_(kernels_for(problem, geometry_.pass).narrow[0]),
        splits_(splits),
        parameters_(parameters_for(problem, geometry_, kernel.tile, splits)),
        narrow_parameters_(parameters_for(problem, geometry_, narrow_.tile, splits)) {}

  void operator()(const LaunchArguments& arguments) const {
    const auto [x, w, y, bias, residual] = arguments.pointers;
    const bool is_wgrad = geometry_.pass == PointwisePass::wgrad, is_dgrad = geometry_.pass == PointwisePass::dgrad;
    const void *left = is_wgrad ? y : w, *right = is_dgrad ? y : x;
    // Tensors that begin at an odd address have their own kernel, too.
    const int left_piece = piece_bytes_of(left, geometry_.left_piece);
    const int right_piece = piece_bytes_of(right, geometry_.right_piece);
    const bool narrow = std::min(left_piece, right_piece) < 16;
    PointwiseParameters p = narrow ? narrow_parameters_ : parameters_;
    p.left.elements = left;
    p.left.piece_bytes = left_piece;
    p.right.elements = right;
    p.right.piece_bytes = right_piece;
    p.out.output = is_wgrad ? w : is_dgrad ? x : y;
    p.out.residual = problem_.has_residual ? residual : nullptr;
    p.out.vector_access = p.out.vector_access && is_aligned(p.out.output) && is_aligned(p.out.residual);
    if (is_wgrad) {
      if (splits_ > 1) {
        p.out.partial = static_cast<float*>(arguments.workspace);
        if (problem_.has_bias) p.partial_bias = p.out.partial + splits_ * p.out.partial_split_stride;
      } else if (problem_.has_bias) {
        p.bias_gradient = bias;
      }
    } else {
      p.bias = problem_.has_bias ? bias : nullptr;
    }
    p.is_plain = p.out.vector_access && p.out.residual == nullptr && p.out.partial == nullptr &&
                 p.length % geometry_.chunk == 0 && is_lower_bound(p.out.activation);
    launch(p, narrow ? narrow_ : kernel_, arguments);
    if (splits_ > 1) reduce(p, problem_.has_bias ? bias : nullptr, arguments);
  }

 private:
  void launch(const PointwiseParameters& p, const Kernel<PointwiseParameters>& kernel,
              const LaunchArguments& arguments) const {
    const bool is_wgrad = geometry_.pass == PointwisePass::wgrad, is_dgrad = geometry_.pass == PointwisePass::dgrad;
    const Operand& output = is_wgrad ? problem_.w : is_dgrad ? problem_.x : problem_.y;
    const int element = geometry_.element;
    launch_kernel(
        {is_wgrad   ? "pointwise_wgrad"
         : is_dgrad ? "pointwise_dgrad"
                    : "pointwise_fprop",
         p.tiles_of_split.divisor() * splits_, 32 * kernel.tile.warps(), kernel.shared_bytes, kernel.launch_bound},
        kernel.function, p,
        {{is_wgrad ? "dy" : "w", p.left.elements, bytes_of(is_wgrad ? problem_.y : problem_.w, element)},
         {is_dgrad ? "dy" : "x", p.right.elements, bytes_of(is_dgrad ? problem_.y : problem_.x, element)},
         {is_wgrad   ? "dw"
          : is_dgrad ? "dx"
                     : "y",
          p.out.partial != nullptr ? nullptr : p.out.output, bytes_of(output, element), true},
         {"bias", p.bias, geometry_.rows * element},
         {"residual", p.out.residual, bytes_of(problem_.residual, element)},
         {"bias_gradient", p.bias_gradient, geometry_.rows * element, true},
         {"partial", p.out.partial, geometry_.partial_bytes(splits_), true}},
        arguments.stream);
  }

  void reduce(const PointwiseParameters& p, void* bias_gradient, const LaunchArguments& arguments) const {
    ReduceParameters parameters{};
    parameters.out = p.out;
    parameters.splits = splits_;
    parameters.items = geometry_.rows * geometry_.columns / geometry_.chunk;
    parameters.chunks = FastDivider<uint64_t>(geometry_.columns / geometry_.chunk);
    parameters.output_strides = {p.output_row, 0, 0};
    parameters.columns_are_taps = true;
    parameters.channels = p.length;
    parameters.channel_pitch = FastDivider<uint32_t>(static_cast<uint32_t>(geometry_.columns));
    parameters.partial_bias = p.partial_bias;
    parameters.bias_gradient = bias_gradient;
    parameters.bias_count = geometry_.rows;
    launch_reduce(problem_.dtype, parameters, p.out.partial, geometry_.partial_bytes(splits_), problem_.w, arguments,
                  nullptr);
  }

  const ConvProblem problem_;
  const Geometry geometry_;
  const Kernel<PointwiseParameters> kernel_, narrow_;
  const int splits_;
  const PointwiseParameters parameters_, narrow_parameters_;
};

Prepared prepare(const ConvProblem& problem, const std::string& text) {
  const Geometry geometry(problem);
  const auto chosen = choose(problem.target, candidates_of(problem, geometry), geometry.is_narrow(), text);
  const Kernel<PointwiseParameters>& kernel = *chosen.kernel;
  const auto launch = std::make_shared<PointwiseLaunch>(problem, kernel, chosen.splits);
  Prepared prepared;
  prepared.description =
      describe(problem, kernel, work_of(problem, geometry, kernel.tile), chosen.splits,
               {{"splits", chosen.splits}, {"copy_bytes", std::min(geometry.left_piece, geometry.right_piece)}});
  prepared.description.workspace_bytes = geometry.partial_bytes(chosen.splits);
  prepared.launch = [launch](const LaunchArguments& arguments) { (*launch)(arguments); };
  return prepared;
}

}  // namespace
}  // namespace mma

const KernelFamily<ConvProblem> pointwise_fprop{
    "pointwise_fprop", "1x1 convolution of NCHW tensors as a matrix product on tensor cores, read and written in place",
    mma::configs, mma::can_implement, mma::prepare};
const KernelFamily<ConvProblem> pointwise_dgrad{
    "pointwise_dgrad", "gradient by input of a 1x1 convolution of NCHW tensors, read and written in place",
    mma::configs, mma::can_implement, mma::prepare};
const KernelFamily<ConvProblem> pointwise_wgrad{
    "pointwise_wgrad", "gradient by weight of a 1x1 convolution of NCHW tensors, split over pixels and added in order",
    mma::configs, mma::can_implement, mma::prepare};

}  // namespace fastconv
