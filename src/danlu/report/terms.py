"""What danlu's own names mean, in both languages: steps, reasons, splits, kinds of personal data, verdicts."""

from __future__ import annotations

from danlu.report.words import t

__all__ = ["FAMILIES", "METRICS", "PII", "PII_POLICIES", "REASONS", "SPLITS", "STEPS", "STREAMS", "VERDICTS"]

SPLITS = {"train": t("train", "训练"), "valid": t("validation", "验证"), "test": t("test", "测试")}

STEPS = {
    "clean": t("cleaning", "清洗"),
    "label_conflicts": t("label conflicts", "标签冲突"),
    "exact_duplicates": t("exact duplicates", "完全重复"),
    "near_duplicates": t("near-duplicates", "近似重复"),
    "split": t("splitting", "划分"),
    "leak_check": t("leaks", "泄漏"),
    "write": t("writing", "写盘"),
}

REASONS = {
    "exact_duplicate": t("says the same as an earlier record", "与更早的一条内容相同"),
    "near_duplicate": t("says nearly the same as an earlier record", "与更早的一条几乎相同"),
    "label_conflict": t("the same text bears different labels", "同一文本带有不同标签"),
    "leak": t("too like a text that the model is tested on", "与用于考核模型的文本过于相似"),
    "missing_text": t("no text", "没有文本"),
    "missing_label": t("no label", "没有标签"),
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

METRICS = {
    "macro_f1": t("macro F1", "宏平均 F1"),
    "accuracy": t("accuracy", "准确率"),
    "auroc": t("AUROC", "AUROC 曲线下面积"),
    "ece": t("calibration error (ECE)", "校准误差（ECE）"),
    "log_loss": t("log loss", "对数损失"),
    "brier": t("Brier score", "Brier 分数"),
}

VERDICTS = {
    "better": t("better", "更好"),
    "worse": t("worse", "更差"),
    "no difference shown": t("no difference shown", "未显示差异"),
}

FAMILIES = {
    "bert": t("Transformer encoder", "Transformer 编码器"),
    "gru": t("recurrent network", "循环神经网络"),
    "ensemble": t("several models as one", "多个模型合一"),
    "tfidf-lr": t("weighted counts of characters with logistic regression", "字符加权计数与逻辑回归"),
}

STREAMS = {
    "init": t("initial weights", "初始权重"),
    "order": t("order of the data", "数据顺序"),
    "dropout": t("dropout", "随机失活"),
    "augment": t("augmentation", "数据增强"),
    "sample": t("sampling", "采样"),
}
