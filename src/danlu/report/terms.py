"""What danlu's own names mean, in both languages: steps, reasons, splits, kinds of personal data and placeholders."""

from __future__ import annotations

from danlu.report.words import t

__all__ = [
    "FAMILIES",
    "PII",
    "PII_POLICIES",
    "PLACEHOLDERS",
    "REASONS",
    "SPLITS",
    "STATES",
    "STEPS",
    "STREAMS",
    "VERDICTS",
]

SPLITS = {"train": t("train", "训练"), "valid": t("validation", "验证"), "test": t("test", "测试")}

STEPS = {
    "feedback": t("feedback", "反馈"),
    "clean": t("cleaning", "清洗"),
    "label_conflicts": t("label conflicts", "标签冲突"),
    "other_translations": t("other translations", "其他译法"),
    "exact_duplicates": t("exact duplicates", "完全重复"),
    "near_duplicates": t("near-duplicates", "近似重复"),
    "split": t("splitting", "划分"),
    "leak_check": t("leaks", "泄漏"),
    "write": t("writing", "写盘"),
}

REASONS = {
    "exact_duplicate": t("the same as an earlier record", "与更早的一条内容相同"),
    "near_duplicate": t("nearly the same as an earlier record", "与更早的一条几乎相同"),
    "label_conflict": t("the same content bears different labels", "同一内容带有不同标签"),
    "other_translation": t("most records translate its text otherwise", "多数记录对同一原文另有译法"),
    "leak": t("too like a record that the model is tested on", "与用于考核模型的记录过于相似"),
    "missing_text": t("no text", "没有文本"),
    "missing_target": t("no translation", "没有译文"),
    "missing_label": t("no label", "没有标签"),
    "untranslated": t("the translation is the text itself", "译文与原文相同"),
    "length_ratio": t("far longer on one side than on the other", "原文与译文长度过于悬殊"),
    "broken_image": t("a picture that cannot be read", "无法读取的图片"),
    "other_size": t("another size than most pictures", "尺寸与多数图片不同"),
    "pii": t("holds personal data", "含有个人信息"),
    "empty": t("nothing left after cleaning", "清洗后为空"),
    "too_short": t("shorter than the limit", "短于下限"),
    "too_long": t("longer than the limit", "长于上限"),
    "language": t("in none of the wanted languages", "不是所需语言"),
    "no_text": t("no letter or digit", "没有任何文字或数字"),
    "broken": t("unreadable characters", "乱码"),
    "symbols": t("mostly symbols", "几乎全是符号"),
    "repetition": t("one thing over and over", "同一内容反复出现"),
    "repeated_lines": t("most lines repeat others", "多数行互相重复"),
    "bad_json": t("not valid JSON", "不是合法的 JSON"),
    "malformed_row": t("another number of columns than the header", "列数与表头不符"),
    "line_too_long": t("a line too long to read", "单行过长，无法读取"),
    "undecodable": t("not decodable as text", "无法解码为文本"),
    "bad_value": t("a value that is no text", "取值不是文本"),
    "missing_value": t("a value is missing", "缺少取值"),
    "unknown_request": t("about a request that is not at hand", "所指的请求不在记录中"),
    "no_input": t("what was asked was not kept", "未保存当时的输入"),
    "no_answer": t("gives no answer that the model could learn", "没有给出可供学习的答案"),
    "wrong_without_answer": t("says that the answer was wrong, not which is right", "只说答错，未给出正确答案"),
    "only_rated": t("a rating alone", "只有评分"),
    "half_surrogate": t("half a character", "残缺字符"),
    "unknown_label": t("none of the model’s classes", "不属于模型的类别"),
    "contradicted": t("of somebody whom most others contradict", "来自多数来源都与之相左的用户"),
    "conflict": t("people disagree, and no side has more", "意见不一，且没有多数"),
    "outvoted": t("labellers, or more sources, say otherwise", "标注员或更多来源另有意见"),
    "repeated": t("says what another record says", "与另一条反馈相同"),
    "held_out": t("kept for the gold set", "留作金标集"),
    "learnt": t("the training data say it already", "训练数据中已有"),
    "contradicts_training": t("the training data say otherwise", "与训练数据矛盾"),
    "corrected": t("a labeller gave another label", "标注员改了标签"),
    "challenger_only": t("from the challenger’s arm alone", "仅来自挑战者一侧"),
    "quota": t("more than one user may make up", "超出单个用户的配额"),
}

PII = {
    "email": t("e-mail address", "电子邮箱"),
    "resident_id": t("resident identity number", "居民身份证号"),
    "bank_card": t("bank card number", "银行卡号"),
    "mobile": t("mobile number", "手机号"),
    "landline": t("landline number", "固定电话"),
    "passport": t("passport number", "护照号"),
    "plate": t("number plate", "车牌号"),
}

PII_POLICIES = {
    "mask": t("found and masked", "找到并遮蔽"),
    "drop": t("found, their records dropped", "找到，所在记录已剔除"),
    "keep": t("not looked for", "未查找"),
}

PLACEHOLDERS = {
    "url": (t("addresses", "网址"), "http://…"),
    "tag": (t("tags", "标签"), "<b>"),
    "entity": (t("entities", "字符实体"), "&nbsp;"),
    "template": (t("templates", "模板变量"), "{{ name }}"),
    "dollar": (t("variables", "变量"), "${name}"),
    "brace": (t("braces", "花括号"), "{name}"),
    "printf": (t("printf", "printf 字段"), "%(name)s"),
    "role": (t("roles", "角色"), ":ref:"),
    "accelerator": (t("access keys", "快捷键"), "&File"),
}
"""Kind -> what it is called, and what one looks like."""

VERDICTS = {
    "better": t("better", "更好"),
    "worse": t("worse", "更差"),
    "no difference shown": t("no difference shown", "未显示差异"),
}

FAMILIES = {
    "bert": t("Transformer encoder", "Transformer 编码器"),
    "gpt": t("Transformer decoder", "Transformer 解码器"),
    "transformer": t("Transformer encoder-decoder", "Transformer 编码器-解码器"),
    "vit": t("Transformer on patches", "图块 Transformer"),
    "cnn": t("convolutional network", "卷积神经网络"),
    "mlp": t("fully connected network", "全连接网络"),
    "gru": t("recurrent network", "循环神经网络"),
    "ensemble": t("several models as one", "多个模型合一"),
    "tfidf-lr": t("weighted counts of characters with logistic regression", "字符加权计数与逻辑回归"),
    "pixels-lr": t("logistic regression on the pixels", "像素上的逻辑回归"),
    "5-gram": t("interpolated counts of up to five characters in a row", "五个以内相邻字符的插值计数"),
    "translation-memory": t("the translation of the most similar known text", "最相似已知原文的译文"),
}

STATES = {
    "finished": t("finished", "已完成"),
    "under way": t("under way", "进行中"),
    "stopped": t("stopped", "已停止"),
}
"""Of a training."""

STREAMS = {
    "init": t("initial weights", "初始权重"),
    "order": t("order of the data", "数据顺序"),
    "dropout": t("dropout", "随机失活"),
    "augment": t("augmentation", "数据增强"),
    "sample": t("sampling", "采样"),
}
