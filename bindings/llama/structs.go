package llama

import "unsafe"

// The structs of llama.h (v0.5.0) that cross the border by value. Field order
// and padding are C's on 64-bit Linux; checkABI measures their sizes and a few
// default values in the library that was opened.

//lint:file-ignore U1000 fields that are never set still have their place

// modelParams is struct llama_model_params, 80 bytes.
type modelParams struct {
	devices, tensorBuftOverrides          uintptr
	gpuLayers, splitMode, loadMode, lazy  int32 // gpuLayers below 0: all
	mainGPU                               int32
	_                                     int32
	tensorSplit, progress, progressData   uintptr
	kvOverrides                           uintptr
	vocabOnly, checkTensors, useExtraBufs bool
	noHost, noAlloc, loadMTP              bool
	_                                     [2]byte
}

// contextParams is struct llama_context_params, 160 bytes.
type contextParams struct {
	context, batch, microBatch, sequences, recurrentSequences uint32
	outputs, outputsPerSequence                               uint32
	threads, threadsBatch                                     int32
	contextType, ropeScaling, pooling, attention              int32
	flashAttention                                            int32
	ropeBase, ropeScale                                       float32
	yarnExt, yarnAttn, yarnFast, yarnSlow                     float32
	yarnContext                                               uint32
	defrag                                                    float32
	evalCallback, evalData                                    uintptr
	typeK, typeV                                              int32
	abortCallback, abortData                                  uintptr
	embeddings, offloadKQV, noPerf, opOffload                 bool
	swaFull, kvUnified                                        bool
	_                                                         [2]byte
	samplers                                                  uintptr
	samplerCount                                              uint64
	otherContext                                              uintptr
}

// batch is struct llama_batch, 56 bytes.
type batch struct {
	count     int32
	_         int32
	token     *int32
	embd      *float32
	position  *int32
	seqCount  *int32
	seqID     **int32
	wantLogit *int8
}

// functions are the entry points of libllama and libggml that are used.
type functions struct {
	loadBackends func(dir string)
	backendInit  func()
	version      func() string
	systemInfo   func() string
	deviceCount  func() uint64
	deviceGet    func(i uint64) uintptr
	deviceName   func(device uintptr) string
	// deviceDescription is the name of the card or processor.
	deviceDescription func(device uintptr) string
	deviceType        func(device uintptr) int32 // 0 processor, 1 card, 2 card in the machine's memory, 3 accelerator
	deviceMemory      func(device uintptr, free, total *uint64)
	logSet            func(callback, data uintptr)
	modelDefaults     func() modelParams
	contextDefaults   func() contextParams
	modelLoad         func(path string, p modelParams) uintptr
	modelFree         func(model uintptr)
	modelDescription  func(model uintptr, buffer *byte, n uint64) int32
	modelVocab        func(model uintptr) uintptr
	modelSize         func(model uintptr) uint64
	chatTemplate      func(model, name uintptr) string
	vocabSize         func(vocab uintptr) int32
	vocabBOS          func(vocab uintptr) int32
	vocabAddBOS       func(vocab uintptr) bool
	vocabIsEnd        func(vocab uintptr, token int32) bool
	tokenize          func(vocab uintptr, text string, n int32, out *int32, capacity int32, special, parse bool) int32
	piece             func(vocab uintptr, token int32, out *byte, capacity, lstrip int32, special bool) int32
	contextNew        func(model uintptr, p contextParams) uintptr
	contextFree       func(context uintptr)
	contextSize       func(context uintptr) uint32
	memory            func(context uintptr) uintptr
	memoryCopy        func(memory uintptr, from, to, p0, p1 int32)
	memoryRemove      func(memory uintptr, sequence, p0, p1 int32) bool
	batchInit         func(tokens, embd, sequences int32) batch
	batchFree         func(b batch)
	decode            func(context uintptr, b batch) int32
	logits            func(context uintptr, i int32) *float32
	quantize          func(t int32, src *float32, dst *byte, start, rows, cols int64, importance uintptr) uint64
	tensorName        func(tensor uintptr) string
	tensorElements    func(tensor uintptr) int64
	tensorBytes       func(tensor uintptr) uint64
	tensorGet         func(tensor uintptr, to unsafe.Pointer, offset, bytes uint64)
	tensorSet         func(tensor uintptr, from unsafe.Pointer, offset, bytes uint64)
}

// names pairs the functions with their symbols; ggml's come from libggml.
func (f *functions) names() (llama, ggml map[string]any) {
	return map[string]any{
			"llama_backend_init": &f.backendInit, "llama_version": &f.version, "llama_print_system_info": &f.systemInfo,
			"llama_log_set": &f.logSet, "llama_model_default_params": &f.modelDefaults,
			"llama_context_default_params": &f.contextDefaults, "llama_model_load_from_file": &f.modelLoad,
			"llama_model_free": &f.modelFree, "llama_model_desc": &f.modelDescription, "llama_model_get_vocab": &f.modelVocab,
			"llama_model_size": &f.modelSize, "llama_model_chat_template": &f.chatTemplate, "llama_vocab_n_tokens": &f.vocabSize,
			"llama_vocab_bos": &f.vocabBOS, "llama_vocab_get_add_bos": &f.vocabAddBOS, "llama_vocab_is_eog": &f.vocabIsEnd,
			"llama_tokenize": &f.tokenize, "llama_token_to_piece": &f.piece, "llama_init_from_model": &f.contextNew,
			"llama_free": &f.contextFree, "llama_n_ctx": &f.contextSize, "llama_get_memory": &f.memory,
			"llama_memory_seq_cp": &f.memoryCopy, "llama_memory_seq_rm": &f.memoryRemove, "llama_batch_init": &f.batchInit,
			"llama_batch_free": &f.batchFree, "llama_decode": &f.decode, "llama_get_logits_ith": &f.logits,
		}, map[string]any{
			"ggml_quantize_chunk": &f.quantize, "ggml_backend_load_all_from_path": &f.loadBackends, "ggml_backend_dev_count": &f.deviceCount,
			"ggml_get_name": &f.tensorName, "ggml_nelements": &f.tensorElements, "ggml_nbytes": &f.tensorBytes,
			"ggml_backend_tensor_get": &f.tensorGet, "ggml_backend_tensor_set": &f.tensorSet,
			"ggml_backend_dev_get": &f.deviceGet, "ggml_backend_dev_name": &f.deviceName, "ggml_backend_dev_description": &f.deviceDescription,
			"ggml_backend_dev_type": &f.deviceType, "ggml_backend_dev_memory": &f.deviceMemory,
		}
}
