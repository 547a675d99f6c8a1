#!/usr/bin/env bash
# Checks and measures Millrace on a machine with a GPU that has nothing but the program: no build, no network.
#
#   bench/device_suite.sh PROGRAM RESULTS_FOLDER GROUP...
#
# GROUP is one of
#   device     what GPU this is, its driver and clocks
#   check      every CUDA tactic against the reference on the CPU (bench op --check), of all operations but those of
#   check_matmul, check_attention   products; attention over caches. Operations are the folders of src/ops.
#   ops        every CUDA tactic timed, with its share of the measured ceilings (bench op)
#   tokens     the bundled models: the same greedy tokens on the GPU as on the CPU, in fp32
#   tests      the compiled tests in folder TESTS (device_test, session_tests; build/cuda-release if unset), on the GPU
#   goldens    texts, ids, logits, log-probabilities and perplexity recorded from transformers, on the GPU
#   beams      beams, encoders and speech recorded from transformers, on the GPU
#   accuracy   the numbers of docs/performance.md: 16-bit logits of the recorded models, Millrace's and transformers', and
#              perplexities by type and cache; needs PyTorch and transformers 5
#   sanitize   compute-sanitizer (memcheck, racecheck, initcheck, synccheck) on the smallest bundled model, chains of
#              products (session_tests of folder TESTS) and small cases of products and attention
#   decode     tokens per second of the 8B and 1B shapes with generated weights, by batch size
#   prefill    time to the first token of the 8B shape by prompt length
#   shapes     tokens per second at batch 1 of other shapes: Llama 2 13B, Code Llama 34B, Mixtral 8x7B, Gemma 2 9B, DeepSeek V2 Lite
#   long       the 8B shape behind prompts of 4k, 6k, 32k and 128k tokens, batch 1
#   build      how long it takes to choose tactics for the 8B shape, nothing cached
#   deterministic   the 8B shape with and without --deterministic, batch 1 and 32
#   memory     what sessions take from the GPU is what was planned, within 1 %; tactics of Code Llama 34B chosen within 1 GiB
#   attention  both attention operations alone: prompts of 2k and 8k, caches of 64 x 4k and 1 x 128k tokens
#   sampler    the operations behind the logits alone
#   random     3,000 random batches: the same tokens on the GPU as on the CPU, in fp32
#   random_16  random batches of up to 128 requests in bf16 and fp16, scored by the CPU in fp32
#   start      from process start to the first token of an 8B checkpoint in the page cache; needs PyTorch (PYTHON names one)
#   torch      logits of the 8B shape beside transformers', by layers, prompt and decode; needs PyTorch and transformers 5
#   torch_batch    the same of a batch of 32
#   torch_shapes   the same of Llama 2 13B, Mixtral 8x7B and Gemma 2 9B
# Each takes at most 8 minutes. Results are JSON lines in RESULTS_FOLDER/GROUP.jsonl. The exit status is that of the
# first group that failed.
set -uo pipefail

program=$(realpath "$1")
results=$(realpath "$2")
shift 2
tests=$(realpath "${TESTS:-$(dirname "$0")/../build/cuda-release}")
cd "$(dirname "$0")/.."
status=0

fail() {
  echo "FAILED: $*" >&2
  status=1
}

# Greedy text of a model on a device, without statistics.
greedy() {
  "$program" run "$1" "$2" --greedy --dtype fp32 --max-new-tokens 48 --no-cache --quiet --device "$3"
}

group_device() {
  local keys="name,driver_version,clocks.sm,clocks.mem,memory.used,power.draw" values
  values=$(nvidia-smi "--query-gpu=$keys" --format=csv,noheader) || fail "nvidia-smi"
  python3 - "$keys" "$values" <<'END'
import json, sys
keys, values = sys.argv[1].split(","), sys.argv[2].splitlines()
for line in values:
    print(json.dumps(dict(zip(keys, line.split(", ")))))
END
  "$program" version --json
}

# The JSON line that a command prints, with more members in front of its own.
labelled() {
  local line status
  line=$("${@:2}")
  status=$?
  [ -n "$line" ] && echo "{$1, ${line#?}"
  return "$status"
}

check_op() {
  labelled "\"op\": \"$1\"" "$program" bench op --check --device cuda --json --op "$1"
}

# Several at a time: the most of it is the reference, on the CPU.
check_ops() {
  export program
  export -f labelled check_op
  printf '%s\n' "$@" | xargs -P 4 -I {} bash -c 'check_op {}'
}

# The operations that have CUDA kernels, in a line each.
cuda_ops() {
  local op
  for op in src/ops/*/; do
    op=$(basename "$op")
    if [ -e "src/ops/$op/$op.cc" ] && compgen -G "src/ops/$op/*_cuda.c*" >/dev/null; then echo "$op"; fi
  done
}

attention_ops=(attention_context attention_generation mla_attention)

group_check() {
  local ops
  mapfile -t ops < <(cuda_ops | grep -vxF -e matmul "${attention_ops[@]/#/-e}")
  [ "${#ops[@]}" -gt 0 ] || fail "there is no src/ops beside bench"
  check_ops "${ops[@]}"
}

group_check_matmul() {
  check_ops matmul
}

group_check_attention() {
  check_ops "${attention_ops[@]}"
}

group_ops() {
  "$program" bench op --device cuda --json
}

group_tokens() {
  local model cpu gpu
  for model in models/novelist-14m models/novelist-draft; do
    for prompt in "It was a dark and stormy night" "Call me" "She opened the letter and read"; do
      cpu=$(greedy "$model" "$prompt" cpu) || fail "$model on the CPU"
      gpu=$(greedy "$model" "$prompt" cuda) || fail "$model on the GPU"
      if [ "$cpu" == "$gpu" ]; then
        echo "{\"model\": \"$model\", \"prompt\": \"$prompt\", \"same_tokens\": true}"
      else
        printf 'CPU: %s\nGPU: %s\n' "$cpu" "$gpu" >&2
        fail "$model continues \"$prompt\" otherwise than on the CPU"
      fi
    done
  done
}

group_tests() {
  local test
  export MILLRACE_SOURCE_DIR=$PWD MILLRACE_TEST_DEVICE=cuda
  for test in device_test session_tests; do
    if "$tests/$test" --gtest_brief=1 >&2; then
      echo "{\"test\": \"$test\", \"passed\": true}"
    else
      fail "$test"
    fi
  done
}

# Test programs in Python, on the GPU.
golden_tests() {
  local test
  export MILLRACE=$program
  for test in "$@"; do
    python3 "tests/$test.py" >&2 && echo "{\"test\": \"$test\", \"passed\": true}" || fail "$test"
  done
}

group_goldens() {
  golden_tests models/test_model_goldens e2e/test_run e2e/test_perplexity
  python3 bench/device_goldens.py
}

group_beams() {
  golden_tests models/test_beam_goldens models/test_encdec_goldens
}

group_accuracy() {
  local novels types
  export MILLRACE=$program
  novels=$(mktemp)
  python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())' tests/data/text/novels-heldout.txt.xz >"$novels"
  for types in "fp32 fp32 131072" "bf16 bf16 131072" "fp16 fp16 131072" "fp32 fp32 32768" "fp32 bf16 32768" "fp32 fp16 32768" \
    "fp32 int8 32768" "fp32 fp8 32768" "bf16 bf16 32768" "bf16 int8 32768" "bf16 fp8 32768"; do
    # shellcheck disable=SC2086  # three words
    set -- $types
    labelled "\"dtype\": \"$1\", \"kv_dtype\": \"$2\"" "$program" perplexity models/novelist-14m --text-file "$novels" \
      --dtype "$1" --kv-dtype "$2" --max-tokens "$3" --device cuda --no-cache --quiet --json || fail "perplexity in $types"
  done
  rm "$novels"
  python3 bench/device_goldens.py | sed 's/^{/{"of": "millrace", /' || fail "device_goldens.py"
  "${PYTHON:-python3}" bench/device_transformers.py | sed 's/^{/{"of": "transformers", /' || fail "device_transformers.py"
}

# What a tool of compute-sanitizer finds in a command: sanitized TOOL WHAT COMMAND...
sanitized() {
  if compute-sanitizer --tool "$1" --error-exitcode 9 --print-limit 5 "${@:3}" >&2; then
    echo "{\"tool\": \"$1\", \"what\": \"$2\", \"findings\": 0}"
  else
    fail "compute-sanitizer $1, $2"
  fi
}

# sanitized_op TOOL OPERATION CASE [TACTIC]
sanitized_op() {
  sanitized "$1" "$2, $3${4:+, $4}" "$program" bench op --check --device cuda --op "$2" --case "$3" ${4:+--tactic "$4"}
}

# All that one tool looks at. Racecheck does not follow what orders accesses in chains of up to 4 rows and in products that exchange sums
# within a cluster (docs/cuda.md), so it looks at less.
sanitize_by() {
  local tool=$1 rows filter="" tile="a tile and a part of one, all bf16" types=()
  for rows in 5 17 33 128; do filter+="Series/ChainCudaTest.AgreesWithTheReference/bf16_${rows}_256:"; done
  [ "$tool" == racecheck ] || filter+="Llama/ChainCudaTest.AgreesWithTheReference/*_256"
  [ "$tool" != racecheck ] || types=(--dtype fp32)  # in 16 bits such a product may be the fastest
  sanitized "$tool" "a model" \
    "$program" run models/novelist-draft "Call me" --greedy --max-new-tokens 8 --no-cache --quiet --device cuda "${types[@]}"
  # A filter that nothing matches passes.
  [ "$("$tests/session_tests" --gtest_filter="$filter" --gtest_list_tests | grep -c '^  ')" -ge 4 ] || fail "no tests of chains"
  sanitized "$tool" "chains of products" "$tests/session_tests" --gtest_brief=1 --gtest_filter="$filter"
  sanitized_op "$tool" mla_attention "bf16 prompts, blocks of 4"
  sanitized_op "$tool" attention_generation "many, four tokens, several pieces, heads of 64"
  sanitized_op "$tool" attention_generation "appends, 16-bit, four tokens, several pieces"
  sanitized_op "$tool" mla_attention "bf16, several tokens"
  if [ "$tool" == racecheck ]; then
    for rows in 8 33 128; do sanitized_op "$tool" matmul "$rows rows, $tile" matmul_swap_cuda; done
    sanitized_op "$tool" matmul "128 rows, $tile" matmul_split_cuda
    return
  fi
  for rows in 5 17 64 128; do sanitized_op "$tool" matmul "$rows rows, $tile"; done
  sanitized_op "$tool" matmul "one row to f32, all bf16"
  sanitized_op "$tool" attention_context "bf16, heads of 64, one to a KV head"
  sanitized_op "$tool" attention_generation "few, three heads share one"
  sanitized_op "$tool" attention_generation "16-bit, heads of 128"
  sanitized_op "$tool" rope_append "a part of the head, packs without a partner"
}

# The tools side by side: each takes minutes.
group_sanitize() {
  local tool running=()
  for tool in memcheck racecheck initcheck synccheck; do
    (
      sanitize_by "$tool"
      exit "$status"
    ) &
    running+=($!)
  done
  for tool in "${running[@]}"; do wait "$tool" || status=1; done
}

latency() {
  "$program" bench latency "$@" --dummy-weights --device cuda --json || fail "bench latency $*"
}

group_decode() {
  local batch length
  for batch in 1 2 4 8 16 32 64 128; do
    length=$((batch == 1 ? 512 : 256))
    latency bench/models/llama-3.1-8b --max-batch-size 128 --max-seq-len 1024 --max-num-tokens 16384 \
      --input-len 128 --output-len "$length" --batch-size "$batch" --num-iters 3
  done
  latency bench/models/llama-3.2-1b --max-batch-size 1 --max-seq-len 1024 --input-len 128 --output-len 256 --num-iters 3
}

group_prefill() {
  local length
  for length in 128 2048 8192; do
    latency bench/models/llama-3.1-8b --max-batch-size 1 --max-seq-len 9216 --input-len "$length" --output-len 1 \
      --num-iters 5
  done
}

group_shapes() {
  local model
  for model in llama-2-13b code-llama-34b mixtral-8x7b gemma-2-9b deepseek-v2-lite; do
    latency "bench/models/$model" --max-batch-size 1 --max-seq-len 1024 --input-len 128 --output-len 128 --num-iters 3
  done
  latency bench/models/deepseek-v2-lite --max-batch-size 32 --max-seq-len 1024 --batch-size 32 --input-len 128 --output-len 128 \
    --num-iters 2
}

group_long() {
  local length
  for length in 4096 6000 32768 131008; do
    latency bench/models/llama-3.1-8b --max-batch-size 1 --max-seq-len 131072 --input-len "$length" --output-len 64 \
      --num-iters 1
  done
}

group_build() {
  local notes
  notes=$("$program" explain bench/models/llama-3.1-8b --dummy-weights --dtype bf16 --device cuda --no-cache \
    --max-batch-size 128 --max-seq-len 1024 --max-num-tokens 16384 --log-level debug 2>&1 >/dev/null) || fail "explain"
  grep "built in" <<<"$notes" | python3 -c 'import json, sys; print(json.dumps({"notes": sys.stdin.read().strip()}))'
}

group_deterministic() {
  local batch flag
  for batch in 1 32; do
    for flag in "" --deterministic; do
      echo "{\"batch_size\": $batch, \"deterministic\": $([ -n "$flag" ] && echo true || echo false)}"
      # shellcheck disable=SC2086  # no flag is no argument
      latency bench/models/llama-3.1-8b --max-batch-size 32 --max-seq-len 1024 --input-len 128 --output-len 128 \
        --batch-size "$batch" --num-iters 3 $flag
    done
  done
}

# The GPU's own count against the plan, for a small, a long and a wide session.
group_memory() {
  local sizes
  for sizes in "1 128" "1 65536" "64 1024"; do
    # shellcheck disable=SC2086  # two numbers
    set -- $sizes
    latency bench/models/llama-3.1-8b --max-batch-size 64 --max-seq-len 65664 --batch-size "$1" --input-len "$2" \
      --output-len 16 --num-iters 1 --warmup 0
  done | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
for line in lines:
    memory = line["memory"]
    share = memory["taken_by_setup_bytes"] / memory["planned_bytes"] - 1
    print(json.dumps({"batch_size": line["batch_size"], "input_len": line["input_len"], **memory, "difference": round(share, 5)}))
    if abs(share) > 0.01:
        sys.exit("FAILED: setup took %d bytes, planned were %d" % (memory["taken_by_setup_bytes"], memory["planned_bytes"]))
if len(lines) != 3:
    sys.exit("FAILED: %d of 3 sessions" % len(lines))' || fail "the memory plan"
  tactics_within 1GiB
  tactics_within 256MiB
  [ "$dropped" -gt 0 ] || fail "256MiB held the trials of weights of 344 MiB and more"
}

# Chooses the tactics of the largest shape with trials of at most so much memory. What does not fit is named in the log.
tactics_within() {
  local notes
  notes=$("$program" explain bench/models/code-llama-34b --dummy-weights --device cuda --max-build-memory "$1" 2>&1 >/dev/null) ||
    fail "tactics of Code Llama 34B within $1"
  echo "$notes" >&2
  dropped=$(grep -c "note: tactic .* dropped for .*, the limit is" <<<"$notes")
  echo "{\"model\": \"code-llama-34b\", \"max_build_memory\": \"$1\", \"dropped\": $dropped}"
}

# Times all cases of each of the operations.
ops_alone() {
  local op
  for op in "$@"; do
    "$program" bench op --device cuda --json --op "$op" || fail "bench op --op $op"
  done
}

group_attention() {
  ops_alone attention_context attention_generation
}

group_sampler() {
  ops_alone sample_token sample_process sample_logprobs log_softmax beam_step
}

group_random() {
  MILLRACE=$program python3 bench/device_random.py
}

group_random_16() {
  local kind
  for kind in bf16 fp16; do
    MILLRACE=$program python3 bench/device_random.py models/novelist-draft --dtype "$kind" --batches 200 || fail "the draft model in $kind"
    MILLRACE=$program python3 bench/device_random.py models/novelist-14m --dtype "$kind" --batches 50 || fail "the 14M model in $kind"
  done
}

group_start() {
  MILLRACE=$program "${PYTHON:-python3}" bench/device_start.py bench/models/llama-3.1-8b
}

beside_torch() {
  local model=$1
  shift
  MILLRACE=$program "${PYTHON:-python3}" bench/device_torch.py "bench/models/$model" "$@" || fail "$model beside transformers"
}

group_torch() {
  beside_torch llama-3.1-8b
}

group_torch_batch() {
  # With prompts of 4,096 transformers would want 72 GiB for what they hide from each other.
  beside_torch llama-3.1-8b --batch 32 --prompt 1024
}

group_torch_shapes() {
  local model
  for model in llama-2-13b gemma-2-9b mixtral-8x7b; do
    # A prompt and 256 tokens fill the context of Llama 2.
    beside_torch "$model" --prompt 3840 --layers ""
  done
}

for group in "$@"; do
  if ! declare -F "group_$group" >/dev/null; then
    fail "there is no group $group; see the head of bench/device_suite.sh"
    continue
  fi
  echo "== $group"
  SECONDS=0
  (
    "group_$group" || fail "$group"
    exit "$status"
  ) 2> >(tee "$results/$group.log" >&2) | tee "$results/$group.jsonl" || status=1
  echo "== $group: $SECONDS s"
done
exit "$status"
