-- The orders of one partition: a day from its start, to its end, which is excluded.
SELECT
    o.id AS order_id,
    CAST(o.ordered_at AT TIME ZONE 'UTC' AS DATE) AS order_date,
    o.customer_id,
    o.status,
    o.amount,
    o.currency,
    CAST(o.amount * o.rate_to_eur AS DECIMAL(14, 2)) AS amount_eur,
    o.ordered_at,
    o.items
FROM raw.orders AS o
WHERE
    o.ordered_at >= CAST($partition_start AS TIMESTAMPTZ)
    AND o.ordered_at < CAST($partition_end AS TIMESTAMPTZ)
