package main

import "strings"

const request = `{"model":"m","messages":[{"role":"system","content":"S"},{"role":"user","content":"U1"},` +
	`{"role":"user","content":[{"type":"text","text":"T"},{"type":"image_url","image_url":{"url":"u"}}]}],"n":1.50,` +
	`"big":12345678901234567890,"t":true,"f":false,"z":null,"a.b":{"c":1},"w*x":2,"o":{"k1":1,"k2":{"x":9}},` +
	`"dup":1,"dup":2,"e":"q\"\u00e9","5":"five","":"empty","stop":["a","b"],"temperature":0.7,"é":"ü"}`

const people = `{
  "name": {"first": "Tom", "last": "Anderson"},
  "age":37,
  "children": ["Sara","Alex","Jack"],
  "fav.movie": "Deer Hunter",
  "friends": [
    {"first": "Dale", "last": "Murphy", "age": 44, "nets": ["ig", "fb", "tw"]},
    {"first": "Roger", "last": "Craig", "age": 68, "nets": ["fb", "tw"]},
    {"first": "Jane", "last": "Murphy", "age": 47, "nets": ["ig", "tw"]}
  ]
}`

const things = `{"vals":[{"a":1,"b":true},{"a":2,"b":"true"},{"a":3,"b":false},{"a":4,"b":"0"},{"a":5,"b":0},{"a":6,"b":"1"},` +
	`{"a":7,"b":1},{"a":8,"b":"false"},{"a":9,"b":null},{"a":10,"b":"x"},{"a":11,"b":""},{"a":12},{"a":13,"b":{}},{"a":14,"b":[]},` +
	`{"a":15,"b":-2.5},{"a":16,"b":"2"}],"nums":[3,1,2,2.5,-1,1e1],"strs":["b","a","c","ab","","A*","é"],` +
	`"mixed":[1,"1",true,null,[1],{"x":1},"q\"t"],"nest":[[1,2],[3,[4,5]],[]],"objs":[{"k":[{"v":1},{"v":2}]},{"k":[{"v":3}]},{"k":[]},{}]}`

const numbers = `{"a":0,"b":-0,"c":1.0,"d":1e3,"e":-1.9,"f":9007199254740993,"g":0.1,"h":1E-7,"i":1e21,"j":123456789.125,` +
	`"k":"12","l":"12abc","m":" 12","n":"-7","o":"1.5","p":"true","q":"T","r":"0","s":"","t":true,"u":false,"v":null,` +
	`"w":[1],"x":{"y":1},"y":"TRUE","z":"f","aa":1.7976931348623157e308,"ab":5e-324,"ac":-12345678901,"ad":100}`

const chunk = `{"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel\"lo\n😀",` +
	`"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"a\":1}"}}]},"finish_reason":null}],"usage":{"prompt_tokens":3,` +
	`"completion_tokens":5,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2}}}`

func readGroups() []group {
	return []group{
		{request, []string{
			"model", "messages", "messages.#", "messages|#", "messages.#.role", "messages.#.nope", "messages.0", "messages.0.role",
			"messages.1.content", "messages.9", "messages.", "", "..", ".", "model.x", "a.b.c", "a\\.b.c", "w\\*x", "w*", "o.k?",
			"o.*", "o.*.x", "o.?2.x", "dup", "e", "5", "z", "t", "f", "n", "big", "temperature", "é", "\\é", "m*", "*", "?", "*.#",
			"messages.@reverse.0.content", "messages.@reverse.0.role", "messages|@reverse|0|content", "messages.@reverse",
			"messages.#(role==\"user\").content", "messages.#(role==user).content", "messages.#(role=user).content",
			"messages.#(role==\"user\")#.content", "messages.#(role==\"user\")#", "messages.#(role==\"assistant\")#",
			"messages.#(role==\"assistant\")", "messages.#(role==\"assistant\").content", "messages.#(content%\"U*\").role",
			"messages.#(content!%\"U*\")#|#", "messages.#(content!%\"U*\")#.#", "messages.#(role).content", "messages.#(nope).content",
			"messages.#.content|0", "messages.#.content.0", "messages.#.content|1", "messages.#.content|#", "messages.#.content.#",
			"messages.2.content.0.text", "messages.2.content.#(type==\"text\")#.text", "messages.2.content.#(type==\"image_url\").image_url.url",
			"messages.#(role!=\"user\")#.role", "messages.#(role>\"system\")#.role", "messages.#(role<=\"system\")#.role",
			"{model,n}", "{\"x\":model,\"y\":messages.0.role}", "[model,n]", "{x:model}", "{model,nope}", "[]", "{}", "{model", "[model,n",
			"{model}.model", "{model}|model", "{model}x", "[model,n].0", "[model,n]|1", "[model,n].#", "{a\\.b.c}", "{messages.#.role}",
			"{messages.#(role==\"user\").content}", "{o.k1,o.k2.x}", "[o.{k1}]", "o.{k1,k2}", "o.[k1,k2.x]", "o|{k1}", "{\"a\":o.{k1}}",
			"{\"a\":!\"lit\",\"b\":!3,\"c\":!true,\"d\":!{\"x\":[1]}}", "{!\"lit\"}", "{!true}", "[@this.model]", "{@this.model}",
			"o.@keys", "o.@values", "o.@ugly", "o.@this", "o.@this.k1", "@this.model", "@valid.model", "@this|model", "@this", "@keys", "@keys.#",
			"!\"lit\"", "!true", "!false", "!null", "!5", "!nope", "!{\"a\":1}.a", "!{\"a\":1}|a", "![1,2]|1", "!", "@", "!true.x", "!TRUE",
			"messages.0|@tostr", "messages.0.@tostr", "messages.@flip", "messages|@flip", "@flip", "@flip.model", "model.@tostr", "model|@tostr",
			"nope|@keys", "nope.@values", "nope|@tostr", "nope|@this", "nope|@ugly", "nope.@reverse", "o.k1.@values", "o.k1.@keys",
			"model.@keys", "o.@reverse", "o.k2.@pretty", "messages.0.@pretty", "o.@pretty:{\"indent\":\"\\t\"}", "o.@pretty:{\"sortKeys\":true,\"prefix\":\" \"}",
			"messages.#.@this", "messages.#.@keys", "messages.#.role.@reverse", "messages.#.role|@reverse", "messages.#.{role}", "messages.#.[role,content]",
			"stop", "stop.0", "stop.1", "stop.2", "stop.#", "stop.@reverse", "stop.@tostr", "stop.@tostr.@fromstr", "stop.@tostr|@fromstr|1",
			"stop.01", "stop.0x", "stop.#x", "stop.##", "stop.#|0", "stop.#|@this", "stop.0.@tostr", "stop.0|@tostr|@tostr", "stop.#(==\"a\")", "stop.#(!=\"a\")#",
			"stop.99999999999999999999", "messages.#()", "messages.#()#", "messages.#(", "messages.#(role", "messages.#(role==\"user\"", "messages.#[role==\"user\"].content",
			"messages.#[role==user]#.content", "messages.#(role==user)#.content.0", "messages.#(role==user)#|1.content", "messages.#(role==user)#|1|content.0.text",
			"messages.#(content.#(type==text)).role", "messages.#(content.#(type==text)#|#==1).role", "messages.#(role==\"us\\\"er\")", "messages.#(role=~true)", "..0", "..#", "..0.model", "..#.model", "..1",
			"@dig:role", "@dig:content", "@dig:text", "@dig:#(role)", "o.@dig:x", "@join", "messages.@join", "messages.@join:{\"preserve\":true}", "messages.@group", "@valid", "@fromstr", "@ugly|@ugly|model",
			"model|", "|model", "model||", "a\\", "\\", "messages|0|role", "messages|0.role", "messages.0|role", "@this|@this|model", "messages.1.@this.content", "messages.1.@this:arg.content", "messages.1.@this:arg|content", "messages.1.@this:(a|b)|content", "messages.1.@this:\"a|b\"|content",
		}},
		{people, []string{
			"name.last", "name.first", "age", "children", "children.#", "children.1", "children|@reverse", "child*.2", "c?ildren.0", "fav\\.movie", "fav.movie",
			"friends.#.first", "friends.1.last", "friends.#(last==\"Murphy\").first", "friends.#(last==\"Murphy\")#.first", "friends.#(age>45)#.last",
			"friends.#(age>=47)#.last", "friends.#(age<47)#.last", "friends.#(age<=47)#.last", "friends.#(age=47)#.last", "friends.#(age!=47)#.last", "friends.#(age==47.0)#.last", "friends.#(age==\"47\")#.last", "friends.#(age>abc)#.last",
			"friends.#(first%\"D*\").last", "friends.#(first!%\"D*\").last", "friends.#(first%\"?a?e\")#.first", "friends.#(nets.#(==\"fb\"))#.first",
			"friends.#(nets.#(==\"ig\")#|#>0)#.first", "friends.#.nets.#", "friends.#.nets|0", "friends.#.nets.0", "friends.#.nets|@flatten", "friends.#.nets.@flatten", "friends.0.nets.@reverse.0",
			"{name.first,age,\"the_murphys\":friends.#(last==\"Murphy\")#.first}", "[name.first,age]", "friends.#.{first,age}", "friends.#.[first,age]|@reverse", "friends.@reverse.#.first",
			"friends|@pretty", "@pretty", "@pretty:{\"width\":10}", "@ugly", "@pretty:{\"sortKeys\":true}", "@pretty:{\"indent\":\"\"}", "children.@pretty", "children.@pretty:{\"width\":5}", "children.@pretty:{\"width\":0}", "friends.0.nets.@pretty|@ugly", "name.@keys", "name.@values", "name.@keys.@reverse", "@keys", "friends.0.@values", "children.@keys", "children.@values",
			"friends.#.age.@this", "friends.#.nets.1", "friends.#(first==\"Dale\").nets.#(%\"t*\")", "friends.#(first==\"Dale\").nets.#(!%\"t*\")#", "friends.#(last==\"Murphy\")#|0.age", "friends.#(last==\"Murphy\")#.age|0",
			"friends.#(last==\"Murphy\")#|#.age", "friends.#(last==\"Murphy\")#.@this", "friends.@group", "friends.@join", "friends.@join.age", "@dig:first", "@dig:nets.0", "@dig:age.@tostr", "friends.#.nope.x", "friends.#.", "friends.#|", "friends.#(last=\"Murphy\" ).first", "friends.#( last == \"Murphy\" ).first", "friends.#( last == Murphy ).first",
		}},
		{things, []string{
			"vals.#(b==~true)#.a", "vals.#(b==~false)#.a", "vals.#(b==~null)#.a", "vals.#(b==~*)#.a", "vals.#(b!=~*)#.a", "vals.#(b!=~true)#.a", "vals.#(b!=~null)#.a", "vals.#(b=~nope)#.a", "vals.#(b==true)#.a", "vals.#(b==\"true\")#.a", "vals.#(b!=true)#.a",
			"vals.#(b==false)#.a", "vals.#(b>false)#.a", "vals.#(b<true)#.a", "vals.#(b>=true)#.a", "vals.#(b<=true)#.a", "vals.#(b==null)#.a", "vals.#(b)#.a", "vals.#(b==\"\")#.a", "vals.#(b<0)#.a", "vals.#(b>0)#.a", "vals.#(b==\"~true\")#.a", "vals.#(b%\"*\")#.a", "vals.#(b%\"\")#.a", "vals.#(b!%\"?\")#.a", "vals.#(b!)#.a", "vals.#(b!x)#.a", "vals.#(b=)#.a", "vals.#(b%)#.a", "vals.#(b<)#.a", "vals.#(b==)#.a",
			"nums.#(>2)#", "nums.#(>=2)#", "nums.#(<2)", "nums.#(==2.5)", "nums.#(==10)", "nums.#(!=1)#|#", "nums.#(>\"2\")#", "nums.#(>2)", "nums.#(>99)#", "nums.#(>99)", "nums.#", "nums.@reverse", "nums.5", "nums.#()#", "nums.#(x)#",
			"strs.#(>\"a\")#", "strs.#(%\"a*\")#", "strs.#(%\"A\\*\")", "strs.#(==\"\")", "strs.#(!%\"?\")#", "strs.#(%\"??\")#", "strs.#(%é)", "strs.#(==\"\\u00e9\")", "strs.@tostr",
			"mixed.#(==1)#", "mixed.#(==\"1\")#", "mixed.#(==true)#", "mixed.#(x==1)#", "mixed.#(==null)#", "mixed.#(=~*)#", "mixed.#(==\"q\\\"t\")", "mixed.#(0==1)", "mixed.#", "mixed.#.x", "mixed.4.0", "mixed.5.x", "mixed.3", "mixed.@keys", "mixed.@flatten", "mixed.@join",
			"nest.@flatten", "nest.@flatten:{\"deep\":true}", "nest.#.0", "nest.1.1.0", "nest.#.#", "nest.1.#.0", "nest.#(#>1)#", "nest.#(0==1)", "nest.@reverse", "nest.@pretty", "nest.@flatten.@reverse.0", "nest.2.0", "nest.2.#", "nest.2.@reverse", "nest.2.@flatten",
			"objs.#.k.#.v", "objs.#.k.#", "objs.#.k|0.#.v", "objs.#.k|@flatten|#.v", "objs.#.k.0.v", "objs.#.k.@reverse.0.v", "objs.#(k.#>1).k.#.v", "objs.#(k.#(v==3)).k", "objs.#(k.#(v>0)#.v|#>1)#|#", "objs.#.k.#(v>1)#.v", "objs.#.k.#(v>1).v", "objs.#.k.#.v|@flatten", "objs.#.k.#.v|#", "objs.@dig:v",
		}},
		{numbers, strings.Split("a b c d e g h i j k l m n o p q r s t u v w x y z aa ab ac ad", " ")},
		{chunk, []string{
			"choices.0.delta.content", "choices.0.delta.role", "choices.0.finish_reason", "choices.#", "choices.0.delta.tool_calls.0.function.arguments",
			"choices.0.delta.tool_calls.0.function.arguments.@fromstr", "choices.0.delta.tool_calls.0.function.arguments.@fromstr.a", "choices.0.delta.tool_calls.#.function.name", "usage.total_tokens", "usage.prompt_tokens_details.cached_tokens",
			"usage.{prompt_tokens,total_tokens}", "choices.1.delta", "choices.0.delta.reasoning_content", "usage.*_tokens", "usage.@keys", "{id,usage.total_tokens,\"text\":choices.0.delta.content}", "choices.#.delta.content", "choices.#(index==0).delta.content", "choices.0.delta.content.@tostr", "choices.0.delta.content.@ugly",
		}},
		{`data: {"a":1}`, []string{"a", "b", "@valid", "@this", "@valid.a", "@this.a"}},
		{"event: x\ndata: {\"a\":2}\n\n", []string{"a", "@this", "@valid|a"}},
		{`not json {"a":7}`, []string{"a", "@this"}},
		{`{"a":1`, []string{"a", "b", "@this", "@this.a", "@valid", "@keys", "@ugly"}},
		{`{"a":"x`, []string{"a", "b", "@keys"}},
		{`{"a":{"b":1`, []string{"a", "a.b", "a.c", "a.@this"}},
		{`{"a":[1,2`, []string{"a", "a.0", "a.1", "a.2", "a.#", "a.#(>1)", "a.#(>0)#", "a.@reverse"}},
		{`{"a":[1,"x`, []string{"a.0", "a.1", "a.#", "a.#.b"}},
		{`{"a":[{"b":1},{"b":2`, []string{"a.#.b", "a.1.b", "a.#(b==2).b", "a.#(b>0)#.b"}},
		{`{"a":1}{"a":2}`, []string{"a", "..#", "..1.a", "..#.a", "..0", "@this", "@keys", "..#(a==2).a", "..#(a>0)#.a"}},
		{"{\"a\":1}\n{\"a\":2}\n\n[3]\n\"x\"\n4\nnull\ntrue", []string{"..#", "..0.a", "..1", "..2.0", "..3", "..4", "..5", "..6", "..7", "..#.a", "..", "..a", "..#(a==1).a", "..@reverse", "..#|@this"}},
		{`data: [DONE]`, []string{"a", "0", "#", "@this"}},
		{``, []string{"a", "", "@this", "@keys", "@values", "@tostr", "@valid", "@reverse", "@ugly", "@pretty", "@flatten", "@join", "@group", "@dig:a", "@fromstr", "..#", "..0", "!1", "{a}", "[a]", "#"}},
		{`   `, []string{"a", "@this", "@tostr", "..#"}},
		{`[1,2]`, []string{"a", "0", "1", "2", "#", "@this", "@reverse", "@reverse.0", "@this.1", "@values", "@keys", "*", "?", "@join", "@group", "@dig:a", "@tostr", "[0,1]", "{0,1}", "{\"a\":0}", "[1,0]|0"}},
		{` [ 1 , "two" , [ 3 ] , { "four" : 4 } , null , true ] `, []string{"0", "1", "2", "2.0", "3", "3.four", "4", "5", "6", "#", "@ugly", "@this", "@pretty", "@reverse", "#.four", "@flatten", "..0", "..0.1"}},
		{`"str"`, []string{"a", "@this", "@tostr", "@fromstr", "@valid", "@keys", "@values", "@reverse", "@flatten", "@ugly", "..0", "#", "@this|@this"}},
		{`"{\"a\":1}"`, []string{"@fromstr", "@fromstr.a", "a", "@fromstr|@pretty"}},
		{`12.50`, []string{"@this", "a", "@values", "@keys", "@tostr", "..0", "@fromstr"}},
		{`null`, []string{"@this", "a", "@values", "@keys", "@valid", "..0", "..#", "@tostr"}},
		{`true`, []string{"@this", "@values", "@fromstr"}},
		{`nan`, []string{"@this", "@valid"}},
		{`{"a":nan,"b":NaN,"c":inf,"d":Infinity,"e":+1,"f":tru,"g":nul,"h":-,"i":1.2.3,"j":0x10}`, []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "@keys"}},
		{`{"a" : 1 , "b":[ 1 , 2 ] , "c" : { "d" : "e" } }`, []string{"a", "b", "b.1", "c", "c.d", "@ugly", "@pretty", "b.@ugly", "c.@reverse", "@reverse", "@values", "@keys", "b.@tostr", "{a,b}", "@join"}},
		{`{"a":"\u00e9\ud83d\ude00\n\t\"\\\/","b\u0063":1,"d\"e":2,"你好":{"世界":"é"},"f":"<&>","g":"\u2028","h":"tab\there"}`, []string{"a", "bc", "b*", "d\"e", "d\\\"e", "d*", "你好.世界", "你好", "你?.世?", "你好.*", "f", "f.@tostr", "g.@tostr", "a.@tostr", "@tostr", "h", "@keys", "h.@tostr"}},
		{`{"a.b":1,"a":{"b":2,"c.d":3},"x|y":4,"#":5,"@this":6,"!":7,"*":8,"?q":9,"a*":10,"[":11,"{":12,"\\":13,"p:q":14,"-1":15,"@k":16}`, []string{"a.b", "a\\.b", "a.c\\.d", "x\\|y", "x|y", "#", "\\#", "@this", "\\@this", "!", "\\!", "\\*", "*", "\\?q", "?q", "a\\*", "a*", "\\[", "[", "\\{", "{", "\\\\", "p:q", "p\\:q", "-1", "@k", "\\@k", "a.*", "a\\*b*", "a?b", "a\\.*"}},
		{`{"k":{"a":1},"k":{"b":2},"k":3}`, []string{"k", "k.a", "k.b", "k.c", "k|b", "@keys", "@values", "@join", "k.@keys", "@this.k.b"}},
		{`{"a":[{"x":1}],"a":[{"y":2},{"y":3}]}`, []string{"a.0.y", "a.1.y", "a.#.y", "a.#(y==3).y", "a.#(y>0)#.y", "a.#", "a.2"}},
		{`{"issues":[{"fields":{"labels":["milestone_1","group:foo","plan:a","plan:b"]},"id":"123"},{"fields":{"labels":["milestone_1","group:foo","plan:a","plan"]},"id":"456"}]}`, []string{`issues.#(fields.labels.#(%"plan:*")#|#>1)#.id`, `issues.#(fields.labels.#(%"plan:*")#|#>=2).id`, "issues.#.fields.labels.#", `issues.#.fields.labels.#(%"plan*")`, `issues.#.fields.labels.#(%"plan*")#`, `issues.#.fields.labels.#(%"plan*")#|#`, `issues.#.fields.labels|@flatten|#(%"group*")#`}},
		{`{"a":[[{"b":[{"c":[1,2]},{"c":[3]}]}],[{"b":[]}]]}`, []string{"a.#.#.b.#.c", "a.#.0.b.0.c.0", "a.0.0.b.#.c|0", "a.0.0.b.#.c|@flatten", "a.@flatten.#.b", "a.#.@flatten", "a.0.0.b.#(c.#>1).c.1", "@dig:c", "@dig:c.0", "@dig:b.#.c"}},
		{`{"id":["a","b"],"v":[1,2,3],"s":"x","o":{"p":1}}`, []string{"@group", "@group.#", "@group.0.id", "@group|2", "@group:x", "@values", "@values.0.1", "@keys.0", "@reverse", "@reverse.@keys"}},
		{`[{"first":"Tom","age":37},{"age":41},5,{"first":"Al"}]`, []string{"@join", "@join:{\"preserve\":true}", "@join:{\"preserve\":false}", "@join.first", "@join|@keys", "@reverse|@join", "#.age", "#(age>40)", "#(first)#.first", "@flatten", "@group"}},
		{`[[1,[2]],[],[3,[4,[5]]],6]`, []string{"@flatten", "@flatten:{\"deep\":true}", "@flatten|@flatten", "@flatten:{\"deep\":false}", "@flatten:{\"deep\":true}|#", "@flatten:{\"deep\":true}.0"}},
		{`{"a":[],"b":{},"c":[[]],"d":[{}]}`, []string{"@pretty", "@ugly", "a.@pretty", "b.@pretty", "a.@flatten", "b.@keys", "b.@values", "a.@values", "b.@reverse", "a.#", "a.#.x", "a.#(x)#", "a.0", "b.x", "c.0.#", "d.0.x", "a.@join", "b.@group", "d.@join", "a.-"}},
		{`{"long":["aaaaaaaaaaaaaaaaaaaaaaaaa","bbbbbbbbbbbbbbbbbbbbbbbbbbbbb","cccccccccccccccccccc"],"short":[1,[2,3],{"a":1}],"nested":{"z":1,"a":{"c":[1,2],"b":null}}}`, []string{"@pretty", "@pretty:{\"sortKeys\":true}", "@pretty:{\"width\":200}", "@pretty:{\"indent\":\"    \",\"prefix\":\"\\t\"}", "long.@pretty", "short.@pretty", "nested.@pretty:{\"sortKeys\":true}"}},
	}
}

func writeGroups() []group {
	return []group{
		{`{"a":1}`, []string{"a", "b", "a.b", "b.c", "b.0", "b.2", "b.-1", "b.:0", "b.-1.c", "b.1.c.0", ":a", ":5", "5", "-1", "", "a.", "b..c", "é.ü", `a\.b`, `b\.c.d`, `\a`, `b"c`, "a|b", "a.#", "a.*", "@this", "b*", "#"}},
		{`{ "a" : 1 , "z":2 }`, []string{"a", "z", "q", "a.b"}},
		{"{\n  \"a\": [1, 2],\n  \"b\": {\n    \"c\": true\n  }\n}", []string{"a.0", "a.1", "a.-1", "b.c", "b.d", "c"}},
		{`{"a":[1,2,3]}`, []string{"a.0", "a.1", "a.2", "a.3", "a.5", "a.-1", "a.x", "a.:1", "a.1.x", "a.-1.x", "a.#"}},
		{`{"a":[]}`, []string{"a.0", "a.-1", "a.2", "a.0.b", "a.x"}},
		{`[1,2]`, []string{"0", "1", "2", "-1", "a", "0.a"}},
		{`[]`, []string{"0", "-1", "1"}},
		{`{}`, []string{"a", "a.b.c", "a.0.b", "0", "a.1", "a.-1", "-1", "a.:1.b"}},
		{``, []string{"a", "0", "x.y", "-1", "1"}},
		{`   `, []string{"a", "0"}},
		{`7`, []string{"model", "0"}},
		{`null`, []string{"a"}},
		{`"str"`, []string{"a", "a.b"}},
		{`{"a":null,"b":"s","c":true}`, []string{"a.b", "b.c.d", "c.0", "a", "b", "c"}},
		{`{"a.b":1,"x":{"y.z":2},"*":3,"é":4,"q\"":5}`, []string{`a\.b`, `x.y\.z`, `\*`, "é", `q"`, `q\"`, "a.b"}},
		{`{"messages":[{"role":"user","content":"U"},{"role":"user","content":"V"}],"model":"m"}`, []string{
			"model", "messages.0.content", "messages.-1", "messages.2.role", "messages.1.content.0.text", "stream_options.include_usage",
			"messages.#.content", `messages.#(role=="user").content`, `messages.#(role=="user")#.content`, "messages.#.nope", "mod*", "nope*", "messages.#(role==x).content", `messages.#(content=="V")`, `messages.#(content=="V")#`,
		}},
	}
}
