"""Records what transformers' chat template engine renders for many small templates: one behaviour of Jinja2, or of what
transformers adds to it, in each.

    make_template_goldens.py      needs transformers

Also asks transformers for the bundled pairs of ../chat-templates, and records where it differs from them.
"""
import json
import os
import pathlib
import time

os.environ["TZ"] = "UTC"
time.tzset()

import transformers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).resolve().parent
NOW = 1752150896  # 2025-07-10 12:34:56 UTC

MESSAGES = [
    {"role": "system", "content": "You are  kind.\n"},
    {"role": "user", "content": " Hi <there> & 'you' \"two\" — ünï 😀 \n"},
    {"role": "assistant", "content": "It's 5 o'clock.", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": [1.5, True, None], "c": {"d": "é\n"}}}}]},
    {"role": "tool", "content": [{"type": "text", "text": "part 1"}, {"type": "image"}]},
    {"role": "user", "content": "bye", "thinking": "hm"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "Does 'f'.", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "z": {"type": "string", "enum": ["x", "y"]}}, "required": ["a"]}}}]
VARIABLES = {"n": 7, "x": 2.5, "big": 1e16, "small": 1e-5, "whole": 3.0, "neg": -4, "s": "Hello, wOrld", "empty": "", "items_list": [3, 1, 2],
             "d": {"b": 2, "a": 1, "keys": "shadow"}, "flag": True, "nothing": None, "words": ["a", "B", "c", "b"],
             "nested": [[1, 2], [3, [4]]], "records": [{"k": 1, "v": "x"}, {"k": 2, "v": "y"}, {"k": 1, "v": "z"}]}

TEMPLATES = """
{{ s.upper() }}|{{ s.lower() }}|{{ s.title() }}|{{ s.capitalize() }}|{{ s.swapcase() }}
{{ "it's a dog's life x2y".title() }}|{{ "ÀB cD".title() }}
{{ s.split() }}|{{ s.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}|{{ ' a  b '.split(' ') }}
{{ 'a,b,c'.rsplit(',', 1) }}|{{ ' a  b c '.rsplit(None, 1) }}|{{ 'a'.rsplit(',') }}
{{ 'a</think>b</think>c'.split('</think>')[-1] }}|{{ 'a</think>b'.split('</think>')[0].split('<think>')[-1].strip('\\n') }}
{{ s.strip('Hd') }}|{{ '  x '.strip() }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ '\\n\\nab\\n'.lstrip('\\n') }}
{{ s.startswith('He') }}|{{ s.endswith(('x', 'ld')) }}|{{ s.startswith(('a', 'b')) }}|{{ s.endswith('ld') }}
{{ s.replace('o', '0') }}|{{ s.replace('o', '0', 1) }}|{{ 'aaa'.replace('aa', 'b') }}|{{ 'ab'.replace('', '-') }}
{{ s.find('o') }}|{{ s.find('z') }}|{{ s.rfind('o') }}|{{ s.count('l') }}|{{ s.index('w') }}
{{ 'abc'.isalpha() }}|{{ '12'.isdigit() }}|{{ 'a1'.isalnum() }}|{{ ' '.isspace() }}|{{ 'ab'.islower() }}|{{ 'AB'.isupper() }}|{{ ''.isalpha() }}
{{ ','.join(['a', 'b']) }}|{{ ', '.join(words) }}|{{ words | join('-') }}|{{ items_list | join }}|{{ records | join(',', attribute='v') }}
{{ 'prefix-x'.removeprefix('prefix-') }}|{{ 'x.txt'.removesuffix('.txt') }}|{{ 'x'.removeprefix('y') }}
{{ 'a=b=c'.partition('=') | list }}|{{ 'a=b=c'.rpartition('=')[0] }}|{{ 'abc'.partition('=')[2] }}
{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'ab'.ljust(4) }}|{{ 'ab'.rjust(4) }}|{{ 'ab'.center(5) }}|{{ 'abc'.center(6, '*') }}|{{ 'ab'.rjust(4, '.') }}
{{ 'a\\nb\\r\\nc'.splitlines() }}|{{ 'ab\\n'.splitlines() | length }}
{{ '{} and {}'.format(1, 'x') }}|{{ '%s-%d' | format('a', 3) }}|{{ '{0}{1}{0}'.format('a', 'b') }}
{{ 'İ'.lower() | length }}|{{ 'ß'.upper() }}
{{ d.items() | list }}|{{ d.get('a') }}|{{ d.get('q') }}|{{ d.get('q', 'dflt') }}|{{ d.values() | list }}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}
{% for k in d %}{{ k }},{% endfor %}|{{ d['keys'] }}|{{ d | list }}|{{ d | length }}
{% for k, v in d | dictsort %}{{ k }}{{ v }}{% endfor %}|{{ d | items | list }}
{{ 'a' in d }}|{{ 'q' in d }}|{{ 'ell' in s }}|{{ 3 in items_list }}|{{ 9 not in items_list }}
{{ messages[0]['content'] }}|{{ messages[-1].content }}|{{ messages[1:] | length }}|{{ messages[:2] | length }}
{% for m in messages[1:] %}{{ loop.index }}{{ m.role[0] }}{% endfor %}
{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}|{{ s[::-1] }}|{{ s[1:5:2] }}|{{ s[-3:] }}|{{ s[:-3] }}|{{ items_list[::-1] }}
{{ messages | length }}|{{ messages | first | tojson }}|{{ (messages | last).thinking }}|{{ messages[4].reasoning_content }}
{{ messages | tojson }}
{{ tools | tojson }}
{{ tools | tojson(indent=4) }}
{{ tools | tojson(indent=2) }}|{{ [] | tojson(indent=2) }}|{{ {} | tojson(indent=2) }}
{{ d | tojson(sort_keys=true) }}|{{ d | tojson(separators=(',', ':')) }}|{{ 'é<>&\\'"/' | tojson }}|{{ 'é😀' | tojson(ensure_ascii=true) }}
{{ [n, x, big, small, whole, neg, flag, nothing] | tojson }}
{{ 'a\\u0000b\\x1f\\x7f' | tojson }}
{{ tools }}
{{ tools | string }}|{{ messages[2].tool_calls[0].function.arguments }}
{{ tools | string | length }}|{{ 'x' ~ [1, 'a', none, true] }}|{{ 'x' ~ d }}
{{ n }}|{{ x }}|{{ big }}|{{ small }}|{{ whole }}|{{ neg }}|{{ flag }}|{{ nothing }}|{{ true }}|{{ none }}|{{ 1.0 }}|{{ 1e100 }}
{{ n ~ x }}|{{ 'a' ~ true }}|{{ 'a' ~ none }}|{{ n ~ '' }}|{{ whole ~ '' }}
{{ n + 1 }}|{{ n - 1 }}|{{ n * 2 }}|{{ n / 2 }}|{{ n // 2 }}|{{ n % 4 }}|{{ n ** 2 }}|{{ neg // 3 }}|{{ neg % 3 }}|{{ -n }}|{{ 6 / 2 }}
{{ n + 0.5 }}|{{ 'ab' * 3 }}|{{ [1] + [2, 3] }}|{{ [0] * 3 }}|{{ 'a' + 'b' }}
{{ n > 3 and n < 10 }}|{{ n == 7 or false }}|{{ not n }}|{{ empty or 'dflt' }}|{{ s and 'x' }}|{{ nothing or 0 }}|{{ 0 or none }}
{{ 1 < n <= 7 }}|{{ 1 < n < 5 }}
{{ 'yes' if flag else 'no' }}|{{ 'yes' if nothing }}|{{ ('a' if false) is defined }}
{{ undefined_thing }}|{{ undefined_thing is defined }}|{{ undefined_thing is undefined }}|{{ undefined_thing | default('d') }}|{{ empty | default('d', true) }}|{{ nothing | default('d') }}
{{ d.missing }}|{{ d.missing is defined }}|{{ d['missing'] | default('x') }}|{{ messages[0].tool_calls is defined }}
{{ undefined_thing or 'fallback' }}|{{ undefined_thing | length }}|{% for q in undefined_thing %}x{% endfor %}
{{ 'a' is string }}|{{ n is number }}|{{ d is mapping }}|{{ items_list is sequence }}|{{ s is sequence }}|{{ d is iterable }}|{{ n is iterable }}|{{ nothing is none }}|{{ flag is true }}|{{ n is integer }}|{{ x is float }}|{{ flag is boolean }}|{{ d is sequence }}
{{ n is odd }}|{{ n is even }}|{{ n is divisibleby 7 }}|{{ s is lower }}|{{ n is eq 7 }}|{{ n is in [7, 8] }}|{{ 's' is sameas 's' }}
{% set a = 1 %}{% for i in [1, 2] %}{% set a = a + i %}{% endfor %}{{ a }}
{% set ns = namespace(found=false, n=0) %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% if i == 2 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}{{ ns.n }}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in range(2, 10, 3) %}{{ i }},{% endfor %}|{{ range(3) | list }}|{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}
{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{% else %}none{% endfor %}
{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}>{{ loop.nextitem.role if not loop.last else '-' }} {% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %}|{% for i in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% macro f(a, b='q', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=4) }}{{ f('x') | upper }}
{% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}in{% endcall %}
{% macro r(x, depth=0) %}{% if depth < 3 %}{{ depth }}{{ r(x, depth + 1) }}{% endif %}{% endmacro %}{{ r(1) }}
{% set block %}cap {{ n }}{% endset %}{{ block }}|{% set t %}  x  {% endset %}{{ t | trim }}|
{% filter upper %}ab {{ s }}{% endfilter %}|{% with q = 3 %}{{ q }}{% endwith %}{{ q }}
{% if n > 5 %}big{% elif n > 3 %}mid{% else %}small{% endif %}|{% if messages[0].role != 'user' -%}   x   {%- endif %}|
{{ ' a b ' | trim }}|{{ s | upper }}|{{ s | lower }}|{{ s | title }}|{{ s | capitalize }}|{{ s | replace('o', '0') }}|{{ s | reverse }}|{{ s | length }}
{{ words | sort }}|{{ words | sort(reverse=true) }}|{{ words | sort(case_sensitive=true) }}|{{ words | unique | list }}|{{ items_list | max }}|{{ items_list | min }}|{{ items_list | sum }}
{{ records | map(attribute='v') | list }}|{{ words | map('upper') | list }}|{{ words | select('equalto', 'a') | list }}|{{ words | reject('in', ['a', 'c']) | list }}
{{ records | selectattr('k', 'equalto', 1) | map(attribute='v') | join(',') }}|{{ records | rejectattr('k', 'eq', 1) | list }}|{{ records | selectattr('v') | list | length }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}|{{ messages | selectattr('tool_calls', 'defined') | list | length }}
{% for key, group in records | groupby('k') %}{{ key }}:{{ group | map(attribute='v') | join }};{% endfor %}
{{ items_list | batch(2) | list }}|{{ nested | length }}|{{ [[1, 2], [3]] | map('first') | list }}|{{ [1, none, 2] | select | list }}
{{ x | round }}|{{ 2.567 | round(1) }}|{{ neg | abs }}|{{ '3' | int + 1 }}|{{ 'z' | int }}|{{ '2.5' | float }}|{{ n | float }}|{{ 3.7 | int }}
{{ '{\\n' | indent(4, first=True) }}|{{ 'a\\nb\\n' | indent('> ') }}|{{ 'a\\n\\nb' | indent(1, blank=true) }}|{{ '' | indent(2, true) }}|{{ 'a\\nb\\nc' | indent(2) }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent }}|{{ 'a\\nb' | indent(width=3, first=true) }}
{{ 'abcdef' | truncate(4) }}|{{ 'one two three' | wordcount }}|{{ 'x' | center(5) }}|{{ '<b>' | e }}|{{ '<b>' | escape }}|{{ '<b>' | safe }}
{{ 'a b/c?é' | urlencode }}|{{ 'ab cd ef gh' | truncate(5, leeway=0) }}|{{ 'abcdefghij' | truncate(5, true, '.', leeway=0) }}|{{ '0x1F' | int(0, 16) }}|{{ none | int(5) }}|{{ true | int }}|{{ 'x' | list }}|{{ s | list | length }}|{{ [1, 2] | last }}|{{ [] | first }}|{{ 'ab' | first }}
{{ dict(a=1, b='x') }}|{{ {'k': [1, {'z': none}]} }}|{{ (1, 'a') }}|{{ (1,) }}|{{ [] }}|{{ {} }}
{{ "it's" }}|{{ ["it's"] }}|{{ ['say "x"'] }}|{{ ['both \\' and "'] }}|{{ ['\\n\\t\\\\ é'] }}
{{ 'single\\'s' }}|{{ "dbl\\"s" }}|{{ 'tab\\tnl\\\\n' }}|{{ '\\u00e9\\x41' }}|{{ 'unknown \\d' }}
{{ 'a' 'b' }}
{{ [1, 2, 3][1] }}|{{ [1, 2, 3][-1] }}|{{ [1][5] }}|{{ 'abc'[1] }}|{{ nested[1][1][0] }}
{{ [1, 2] == [1, 2] }}|{{ {'a': 1} == {'a': 1} }}|{{ 1 == 1.0 }}|{{ '1' == 1 }}|{{ none == false }}|{{ 'a' < 'b' }}|{{ true == 1 }}
{% raw %}{{ not }} {% rendered %}{% endraw %}|{# comment #}|{#- strip -#}  x
{%+ if true %} plus {% endif +%}
next
a {{- ' b ' -}} c
{% generation %}  said {{ s }} {% endgeneration %}|{%- generation -%}  x  {%- endgeneration -%}  |
{% set q = 1 %}{% generation %}{% set q = 2 %}{% endgeneration %}{{ q }}
{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now('%d %b %Y') }}|{{ strftime_now('%A, %B %d, %H:%M:%S %p %j %y %%') }}|{{ strftime_now('') }}
{{ bos_token }}{{ eos_token }}|{{ bos_token is defined }}|{{ pad_token is defined }}|{{ add_generation_prompt }}|{{ documents is none }}
{% if tools is not none and tools %}T{% endif %}{% if not (tools is iterable and tools | length > 0) %}N{% endif %}
{{ messages[2].tool_calls[0].function.arguments | tojson }}|{{ messages[3].content[0].text }}|{% for c in messages[3].content %}{{ c.type }}{% endfor %}
{%- for message in messages %}{{ '<|' + message['role'] + '|>' }}{%- if message.content is string %}{{ message.content | trim }}{% else %}{% for p in message.content %}{{ p.text if p.type == 'text' else '<img>' }}{% endfor %}{% endif %}{% endfor %}
{{ raise_exception('roles must alternate: ' ~ n) }}
{% if n == 7 %}{{ raise_exception("no " + s) }}{% endif %}
{{ undefined_thing.attribute }}
{{ undefined_function() }}
{{ 'a'.nope() }}
{{ 1 + 'a' }}
{{ none.x }}
{{ undefined_thing | tojson }}
""".strip("\n").split("\n")
# Templates of several lines, which the list above cannot hold.
LONG = [
    "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n",
    "  {%- if true -%}\n\n  a\n\n  {%- endif %}\n\n b\n",
    "a\n   {# note #}\nb\n  {# note #} c\n",
    "{% set x = [\n  1,\n  2 ] %}\n{{ x }}\n\n",
    "x\n{% if true %}\n  y\n{% else %}\nz\n{% endif %}\n",
    "\n\n{{ n }}\n\n", "  {% if true %}   \n  indented\n    {% endif %}  \ntail\n", "line one\n{%- if true %}\n  x\n{%- endif %}\n\nend",
    "{% macro a() %}\n  in\n{% endmacro %}\n{{ a() }}|\n",
    "{{ n }} \n  {% set q = 1 %}  \n{{ q }}\n",
    "{%- macro p(v) -%}\n  {%- if v is mapping -%}\n    {%- for k, x in v.items() -%}{{ k }}:{{ p(x) }};{%- endfor -%}\n"
    "  {%- elif v is iterable and v is not string -%}\n    [{% for x in v %}{{ p(x) }},{% endfor %}]\n  {%- else -%}\n    {{ v }}\n"
    "  {%- endif -%}\n{%- endmacro -%}\n{{ p(tools) }}",
]


class Clock(chat_template_utils.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, tz)


def render(template, messages, **kwargs):
    return chat_template_utils.render_jinja_template([messages], chat_template=template, **kwargs)[0][0]


def pair_differences():
    """Pairs that transformers renders otherwise than the JavaScript engine they come from."""
    pairs = json.loads((HERE.parent / "chat-templates/chat_template_pairs.json").read_text())
    different = {}
    for pair in pairs:
        data = dict(pair.get("data") or {"messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}], "add_generation_prompt": True})
        rendered = render(pair["chat_template"], data.pop("messages"), tools=data.pop("tools", None),
                          documents=data.pop("documents", None), **data)
        if rendered != pair["target"]:
            different[pair["name"]] = rendered
    return different


def main():
    chat_template_utils.datetime = Clock
    cases = []
    for template in TEMPLATES + LONG:
        case = {"template": template}
        try:
            case["text"] = render(template, MESSAGES, tools=TOOLS, add_generation_prompt=True, bos_token="<s>", eos_token="</s>",
                                  **VARIABLES)
        except Exception as error:
            case["error"] = f"{type(error).__name__}: {error}"
        cases.append(case)
    result = {"transformers": transformers.__version__, "now": NOW, "messages": MESSAGES, "tools": TOOLS, "variables": VARIABLES,
              "cases": cases, "pairs": pair_differences()}
    (HERE / "template_goldens.json").write_text(json.dumps(result, indent=1, ensure_ascii=True) + "\n")


main()
