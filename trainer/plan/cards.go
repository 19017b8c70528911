package plan

import (
	"maps"
	"slices"
	"strings"

	"onceupon/trainer/fault"
)

// Card is one by its maker's figures.
type Card struct {
	Name   string // as the driver says it
	Bytes  uint64 // that CUDA gives, less than the data sheet's
	TFLOPs float64
	FP32   float64 // TFLOP/s outside the tensor cores
	GBs    float64
	Watts  float64
}

// Cards by name. TFLOPs are of bf16 with fp32 sums on the tensor cores, dense:
// half of what a data sheet marks "with sparsity". From NVIDIA's data sheets of
// H100 (SXM, NVL; the PCIe card's is of 2022), H200, A100 80 GB, L40S, L4 and
// A10, and the white papers of Ada (table of the RTX 4090) and GA102 (of the
// RTX 3090), whose "with FP32 accumulate" is half of the rate with FP16 sums on
// GeForce cards alone. H100 SXM and H200: 1979 / 2; NVL: 1671 / 2; PCIe: 1513 / 2;
// A100: 624 / 2; L40S: 362.05 as printed; L4: 242 / 2; A10: 250 / 2.
var Cards = map[string]Card{
	"h200":         {"NVIDIA H200", 139 << 30, 989, 67, 4800, 700},
	"h200-nvl":     {"NVIDIA H200 NVL", 139 << 30, 835, 60, 4800, 600},
	"h100":         {"NVIDIA H100 80GB HBM3", 79 << 30, 989, 67, 3350, 700},
	"h100-nvl":     {"NVIDIA H100 NVL", 93 << 30, 835, 60, 3900, 400},
	"h100-pcie":    {"NVIDIA H100 PCIe", 79 << 30, 756, 51, 2000, 350},
	"a100-80":      {"NVIDIA A100-SXM4-80GB", 79 << 30, 312, 19.5, 2039, 400},
	"a100-80-pcie": {"NVIDIA A100 80GB PCIe", 79 << 30, 312, 19.5, 1935, 300},
	"l40s":         {"NVIDIA L40S", 44 << 30, 362, 91.6, 864, 350},
	"l4":           {"NVIDIA L4", 22 << 30, 121, 30.3, 300, 72},
	"a10":          {"NVIDIA A10", 22 << 30, 125, 31.2, 600, 150},
	"rtx-4090":     {"NVIDIA GeForce RTX 4090", 236 << 30 / 10, 165, 82.6, 1008, 450},
	"rtx-3090":     {"NVIDIA GeForce RTX 3090", 236 << 30 / 10, 71, 35.6, 936, 350},
}

// NamedCard finds a card.
func NamedCard(name string) (Card, error) {
	c, ok := Cards[name]
	if !ok {
		return c, fault.New(fault.Usage, "--card %q: the cards are %s", name, strings.Join(slices.Sorted(maps.Keys(Cards)), ", "))
	}
	return c, nil
}

// DataSheet finds a card by the name that the driver gives it, with or without
// our " (sm_90)" behind it.
func DataSheet(driver string) (Card, bool) {
	driver, _, _ = strings.Cut(driver, " (sm_")
	for _, c := range Cards {
		if c.Name == driver {
			return c, true
		}
	}
	return Card{}, false
}
