// Columns of x side by side: a panel holds `width` columns, eight values of each in turn, so that a kernel reads all of
// them with one pointer. As rows far apart they would fall on the same lines of the first cache.
//
// Included inside an anonymous namespace, once for every set of compiler options, so that no code compiled for one
// processor is linked into the path of another.

template <class T>
class Panels {
 public:
  struct Panel {
    int64_t first;  // column of x
    int width;      // columns, those beyond the last of x are zero
    const T* data;  // [tile][width][8]
  };

  // Cuts into panels of the given widths (ascending): the narrowest that holds what is left, else the widest.
  // `lay(n, k, to)` writes column n's eight values for the weight's columns from k on.
  template <class Lay>
  Panels(const Columns& columns, std::initializer_list<int> widths, Lay lay) {
    std::vector<std::pair<int64_t, int>> cuts;
    int64_t total = 0;
    for (int64_t first = 0; first < columns.count; first += cuts.back().second) {
      const auto enough = std::find_if(widths.begin(), widths.end(),
                                       [&](int width) { return width >= columns.count - first; });
      cuts.emplace_back(first, enough == widths.end() ? *(widths.end() - 1) : *enough);
      total += cuts.back().second;
    }
    data_.resize(static_cast<size_t>(total * columns.stride));
    T* to = data_.data();
    for (const auto& [first, width] : cuts) {
      panels_.push_back({first, width, to});
      fill(columns, first, width, lay, to);
      to += width * columns.stride;
    }
  }
  Panels(const Panels&) = delete;
  Panels& operator=(const Panels&) = delete;

  const std::vector<Panel>& all() const { return panels_; }

 private:
  template <class Lay>
  static void fill(const Columns& columns, int64_t first, int width, Lay& lay, T* to) {
    for (int64_t i = 0; i < std::min<int64_t>(width, columns.count - first); ++i)
      for (int64_t tile = 0; tile < columns.stride / 8; ++tile) lay(first + i, 8 * tile, to + (tile * width + i) * 8);
  }

  std::vector<T> data_;
  std::vector<Panel> panels_;
};
